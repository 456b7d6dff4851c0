#include "cpu/head.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/scored.h"

namespace specee {
namespace {

// The k best seen so far, as a heap whose top is the worst of them.
void offer(std::vector<Scored>& best, size_t k, Scored candidate) {
  if (best.size() < k) {
    best.push_back(candidate);
    std::push_heap(best.begin(), best.end(), better);
  } else if (better(candidate, best.front())) {
    std::pop_heap(best.begin(), best.end(), better);
    best.back() = candidate;
    std::push_heap(best.begin(), best.end(), better);
  }
}

}  // namespace

Head::Head(int vocab_size, HeadStream& stream, int members)
    : vocab_size_(static_cast<size_t>(vocab_size)), stream_(stream), members_(static_cast<size_t>(members)) {}

void Head::logits(const std::vector<const float*>& hidden, const DraftHead* head, float* out) {
  const std::vector<int>* ids = head != nullptr ? head->ids() : nullptr;
  if (ids != nullptr) std::fill_n(out, hidden.size() * vocab_size_, -std::numeric_limits<float>::infinity());
  stream_.run(hidden, head, [&](int, const HeadPiece& p) {
    for (int r = 0; r < p.rows; ++r) {
      float* row = out + static_cast<size_t>(p.row + r) * vocab_size_;
      if (ids == nullptr)
        std::memcpy(row + p.begin, p.of(r), static_cast<size_t>(p.columns) * sizeof(float));
      else
        for (int i = 0; i < p.columns; ++i) row[(*ids)[static_cast<size_t>(p.begin + i)]] = p.of(r)[i];
    }
  });
}

void Head::topk(const std::vector<const float*>& hidden, const DraftHead* head, int k, int64_t* ids,
                float* values) {
  const std::vector<int>* tokens = head != nullptr ? head->ids() : nullptr;
  const size_t rows = hidden.size(), wanted = static_cast<size_t>(k);
  std::vector<std::vector<Scored>> best(rows * members_);
  for (std::vector<Scored>& list : best) list.reserve(wanted);  // nothing may throw in a team
  stream_.run(hidden, head, [&](int member, const HeadPiece& p) {
    for (int r = 0; r < p.rows; ++r)
      for (int i = 0; i < p.columns; ++i)
        offer(best[static_cast<size_t>(member) * rows + static_cast<size_t>(p.row + r)], wanted,
              {p.of(r)[i], p.begin + i});
  });
  for (size_t r = 0; r < rows; ++r) {
    std::vector<Scored> merged;
    for (size_t member = 0; member < members_; ++member)
      for (const Scored& candidate : best[member * rows + r]) offer(merged, wanted, candidate);
    std::sort(merged.begin(), merged.end(), better);
    for (size_t i = 0; i < merged.size(); ++i) {
      const int column = merged[i].token;
      ids[r * wanted + i] = tokens != nullptr ? (*tokens)[static_cast<size_t>(column)] : column;
      values[r * wanted + i] = merged[i].value;
    }
  }
}

}  // namespace specee
