// The columns of a head and the tokens they belong to.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/draft_head.h"

namespace specee {

struct HeadColumns {
  int count;
  const std::vector<int>* ids;  // tokens, ascending; null if columns are tokens

  HeadColumns(int vocab_size, const DraftHead* head)
      : count(vocab_size), ids(head != nullptr ? head->ids() : nullptr) {
    if (ids != nullptr) count = static_cast<int>(ids->size());
  }
  int token(int column) const { return ids != nullptr ? (*ids)[static_cast<size_t>(column)] : column; }
  const int* tokens() const { return ids != nullptr ? ids->data() : nullptr; }
  // Columns of those tokens that have one; both ascending.
  std::vector<int> of(const std::vector<int>& found) const {
    if (ids == nullptr) return found;
    std::vector<int> columns;
    auto at = ids->begin();
    for (const int one : found) {
      at = std::lower_bound(at, ids->end(), one);
      if (at != ids->end() && *at == one) columns.push_back(static_cast<int>(at - ids->begin()));
    }
    return columns;
  }
};

}  // namespace specee
