#include "cpu/draft_head.h"

#include <algorithm>
#include <string>
#include <utility>

#include "specee/errors.h"

namespace specee {

HeadRows::HeadRows(const PackedMatrix& head, std::vector<int> tokens)
    : ids(std::move(tokens)), matrix(static_cast<int>(ids.size()), head.k(), head.type(), "a draft head") {
  for (size_t column = 0; column < ids.size(); ++column)
    matrix.copy_row(head, ids[column], static_cast<int>(column));
}

HeadRows::HeadRows(int k, std::vector<int> tokens, WeightType type, const void* blocks)
    : ids(std::move(tokens)), matrix(static_cast<int>(ids.size()), k, type, "a draft head") {
  matrix.set_rows({}, 0, static_cast<int>(ids.size()), blocks, type);
}

DraftHead::DraftHead(const ModelConfig& model, const PackedMatrix& whole,
                     std::shared_ptr<const HeadRows> rows, std::unique_ptr<const Adapter> adapter,
                     bool normed)
    : model_(&model), whole_(whole), rows_(std::move(rows)), adapter_(std::move(adapter)), normed_(normed) {}

namespace {

std::vector<int> checked(const std::vector<int64_t>& tokens, int vocab_size) {
  if (tokens.empty())
    throw ConfigurationError("a draft vocabulary of no tokens: give one or more, or None for all");
  std::vector<int> ids;
  for (const int64_t token : tokens) {
    if (token < 0 || token >= vocab_size)
      throw ConfigurationError("draft vocabulary: token id " + std::to_string(token) +
                               " is outside the vocabulary; ids are 0 to " + std::to_string(vocab_size - 1));
    ids.push_back(static_cast<int>(token));
  }
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice != ids.end())
    throw ConfigurationError("draft vocabulary: token id " + std::to_string(*twice) +
                             " is given twice; give each once");
  return ids;
}

}  // namespace

std::unique_ptr<DraftHead> DraftHeads::make(std::unique_ptr<const Adapter> adapter,
                                            const std::vector<int64_t>* tokens, const HeadBlocks* blocks,
                                            bool normed) {
  std::shared_ptr<const HeadRows> rows;
  if (tokens != nullptr && blocks != nullptr)
    rows = std::make_shared<const HeadRows>(whole_.k(), checked(*tokens, config_.vocab_size), blocks->type,
                                            blocks->rows);
  else if (tokens != nullptr)
    rows = rows_of(*tokens);
  return std::make_unique<DraftHead>(config_, whole_, std::move(rows), std::move(adapter), normed);
}

std::shared_ptr<const HeadRows> DraftHeads::rows_of(const std::vector<int64_t>& tokens) {
  std::vector<int> ids = checked(tokens, config_.vocab_size);
  made_.erase(std::remove_if(made_.begin(), made_.end(), [](const auto& rows) { return rows.expired(); }),
              made_.end());
  for (const std::weak_ptr<const HeadRows>& made : made_)
    if (const std::shared_ptr<const HeadRows> rows = made.lock(); rows && rows->ids == ids) return rows;
  const auto rows = std::make_shared<const HeadRows>(whole_, std::move(ids));
  made_.push_back(rows);
  return rows;
}

}  // namespace specee
