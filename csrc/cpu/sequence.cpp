#include "cpu/sequence.h"

#include <algorithm>
#include <string>
#include <utility>

#include "specee/errors.h"

namespace specee {

Sequence::Sequence(const ModelConfig& config, int capacity, Dtype dtype, bool poison)
    : model_(&config),
      vocab_size_(config.vocab_size),
      num_layers_(config.num_layers),
      capacity_(capacity),
      poison_(poison),
      rows_(static_cast<size_t>(capacity)),
      keeps_(config, poison),
      cache_(config, capacity, dtype) {
  if (poison_)
    for (int slot = 0; slot < capacity; ++slot) cache_.poison(slot);
}

std::vector<int> Sequence::frontier() const {
  std::vector<int> counts(static_cast<size_t>(num_layers_), complete_);
  for (int p = complete_; p < length_; ++p)
    for (int l = 0; l < rows_[static_cast<size_t>(p)].done; ++l) ++counts[static_cast<size_t>(l)];
  return counts;
}

std::vector<int> Sequence::speculative() const {
  std::vector<int> slots;
  for (int slot = length_; slot < capacity_ && static_cast<int>(slots.size()) < speculative_; ++slot)
    if (rows_[static_cast<size_t>(slot)].live) slots.push_back(slot);
  std::stable_sort(slots.begin(), slots.end(), [this](int a, int b) {
    return rows_[static_cast<size_t>(a)].position < rows_[static_cast<size_t>(b)].position;
  });
  return slots;
}

const Row& Sequence::row(int slot) const {
  if (slot < 0 || slot >= capacity_ || !rows_[static_cast<size_t>(slot)].live)
    throw RowError("there is no row in slot " + std::to_string(slot) + ": committed rows are in slots 0 to " +
                   std::to_string(length_ - 1) + ", and speculative rows in those that branch() returned");
  return rows_[static_cast<size_t>(slot)];
}

Row& Sequence::row(int slot) { return const_cast<Row&>(static_cast<const Sequence*>(this)->row(slot)); }

void Sequence::check_tokens(const std::vector<int>& tokens) const {
  for (const int token : tokens)
    if (token < 0 || token >= vocab_size_)
      throw RowError("token id " + std::to_string(token) + " is outside the vocabulary: ids are 0 to " +
                     std::to_string(vocab_size_ - 1));
}

void Sequence::check_room(size_t rows) const {
  const int used = length_ + speculative_;
  if (rows > static_cast<size_t>(capacity_ - used))
    throw CapacityError("no room for " + std::to_string(rows) + " more rows: " + std::to_string(used) +
                        " of " + std::to_string(capacity_) + " slots are taken; reserve a larger sequence");
}

void Sequence::place(int slot, int token, int parent, int position) {
  Row& row = rows_[static_cast<size_t>(slot)];
  row = Row{};
  row.token = token;
  row.parent = parent;
  row.position = position;
  row.live = true;
}

void Sequence::clear(int slot) {
  Row& row = rows_[static_cast<size_t>(slot)];
  keeps_.give(std::move(row.kept));
  row = Row{};
}

void Sequence::drop(int slot) {
  clear(slot);
  if (poison_) cache_.poison(slot);
}

bool Sequence::is_speculative(int slot) const {
  return slot >= length_ && slot < capacity_ && rows_[static_cast<size_t>(slot)].live;
}

int Sequence::append(const std::vector<int>& tokens) {
  check_tokens(tokens);
  if (speculative_ > 0)
    throw RowError("cannot append while " + std::to_string(speculative_) +
                   " speculative rows are live: commit a path (an empty one drops them all) first");
  check_room(tokens.size());
  const int first = length_;
  for (const int token : tokens) {
    place(length_, token, length_ - 1, length_);
    ++length_;
  }
  return first;
}

std::vector<int> Sequence::branch(const std::vector<int>& tokens, const std::vector<int>* parents, int root) {
  check_tokens(tokens);
  if (root != last_committed() && !is_speculative(root))
    throw RowError("root " + std::to_string(root) + " is neither the last committed position (" +
                   std::to_string(last_committed()) + ") nor a live speculative row");
  if (parents != nullptr && parents->size() != tokens.size())
    throw RowError("branch got " + std::to_string(tokens.size()) + " tokens and " +
                   std::to_string(parents->size()) + " parents; give one parent a token");
  for (size_t i = 0; parents != nullptr && i < parents->size(); ++i)
    if ((*parents)[i] < -1 || (*parents)[i] >= static_cast<int>(i))
      throw RowError("parent " + std::to_string((*parents)[i]) + " of row " + std::to_string(i) +
                     ": it must be -1 (the root) or the index of an earlier row of this call");
  check_room(tokens.size());
  std::vector<int> slots;
  int slot = length_;
  for (size_t i = 0; i < tokens.size(); ++i) {
    while (rows_[static_cast<size_t>(slot)].live) ++slot;
    const int before = parents != nullptr ? (*parents)[i] : static_cast<int>(i) - 1;
    const int parent = before < 0 ? root : slots[static_cast<size_t>(before)];
    const int position = parent < 0 ? 0 : rows_[static_cast<size_t>(parent)].position + 1;
    place(slot, tokens[i], parent, position);
    ++speculative_;
    slots.push_back(slot);
  }
  return slots;
}

void Sequence::prune(const std::vector<int>& slots) {
  for (const int slot : slots)
    if (!is_speculative(slot))
      throw RowError("cannot prune slot " + std::to_string(slot) + ": it holds no live speculative row");
  std::vector<char> dead(static_cast<size_t>(capacity_), 0);
  for (const int slot : slots) dead[static_cast<size_t>(slot)] = 1;
  for (const int slot : speculative()) {  // parents first, so death spreads downwards in one sweep
    const int parent = rows_[static_cast<size_t>(slot)].parent;
    if (parent >= length_ && dead[static_cast<size_t>(parent)]) dead[static_cast<size_t>(slot)] = 1;
  }
  for (const int slot : speculative())
    if (dead[static_cast<size_t>(slot)]) {
      drop(slot);
      --speculative_;
    }
}

void Sequence::check_path(const std::vector<int>& path) const {
  int expected = last_committed();
  for (const int slot : path) {
    if (!is_speculative(slot))
      throw RowError("cannot commit slot " + std::to_string(slot) + ": it holds no live speculative row");
    const int parent = rows_[static_cast<size_t>(slot)].parent;
    if (parent != expected)
      throw RowError("slot " + std::to_string(slot) + " is a child of slot " + std::to_string(parent) +
                     ", not of " + std::to_string(expected) +
                     ": a path goes from the last committed position down, without gaps");
    expected = slot;
  }
}

void Sequence::commit(const std::vector<int>& path) {
  check_path(path);
  std::vector<Row> kept;
  std::vector<int> target;
  const std::vector<int> live = speculative();
  for (const int slot : path) {
    target.push_back(length_ + static_cast<int>(kept.size()));
    kept.push_back(std::move(rows_[static_cast<size_t>(slot)]));
  }
  int layers = poison_ ? num_layers_ : 0;  // poisoned tests want the rest of a slot to be NaN still
  for (const Row& row : kept) layers = std::max(layers, row.done);
  cache_.move(path, target, layers);
  const int end = length_ + static_cast<int>(path.size());
  for (const int slot : live) clear(slot);
  if (poison_)
    for (const int slot : live)
      if (slot >= end) cache_.poison(slot);
  for (Row& row : kept) {
    row.parent = length_ - 1;
    rows_[static_cast<size_t>(length_)] = std::move(row);
    ++length_;
  }
  speculative_ = 0;
  for (const int slot : target) note_done(slot, rows_[static_cast<size_t>(slot)].done, true);
}

void Sequence::rollback(int n) {
  if (n < 0 || n > length_)
    throw RowError("cannot roll back " + std::to_string(n) + " positions: the sequence has " +
                   std::to_string(length_));
  drop_speculative();
  for (int slot = length_ - n; slot < length_; ++slot) drop(slot);
  length_ -= n;
  complete_ = std::min(complete_, length_);
  oldest_kept_ = std::min(oldest_kept_, complete_);
  held_.erase(std::remove_if(held_.begin(), held_.end(), [this](int slot) { return slot >= length_; }),
              held_.end());
}

std::vector<int32_t> Sequence::path(int slot) const {
  std::vector<int32_t> slots;
  for (int at = slot; at >= length_; at = rows_[static_cast<size_t>(at)].parent) slots.push_back(at);
  std::reverse(slots.begin(), slots.end());
  return slots;
}

std::vector<int> Sequence::distinct_tokens(int slot) const {
  std::vector<int> tokens;
  for (int at = slot; at >= 0; at = rows_[static_cast<size_t>(at)].parent)
    tokens.push_back(rows_[static_cast<size_t>(at)].token);
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  return tokens;
}

void Sequence::drop_speculative() {
  for (const int slot : speculative()) drop(slot);
  speculative_ = 0;
}

void Sequence::release_hidden(const std::vector<char>& keep) {
  std::vector<int> still;
  for (const int slot : held_) {
    if (keep[static_cast<size_t>(slot)])
      still.push_back(slot);
    else
      rows_[static_cast<size_t>(slot)].hidden.reset();
  }
  held_ = std::move(still);
}

void Sequence::note_done(int slot, int done, bool keep) {
  Row& row = rows_[static_cast<size_t>(slot)];
  row.done = done;
  if (slot >= length_ || done < num_layers_) return;
  if (!keep) row.hidden.reset();
  if (row.hidden != nullptr) held_.push_back(slot);
  while (complete_ < length_ && rows_[static_cast<size_t>(complete_)].done == num_layers_) ++complete_;
  retire();
}

void Sequence::keep(const std::vector<int>& layers, int positions) {
  keeps_.set(layers, positions);
  for (Row& row : rows_) row.kept.reset();
  oldest_kept_ = complete_;
}

int Sequence::kept() const {
  int count = 0;
  while (count < complete_ && rows_[static_cast<size_t>(complete_ - 1 - count)].kept != nullptr) ++count;
  return count;
}

void Sequence::begin_kept(int slot, int complete) {
  Row& row = rows_[static_cast<size_t>(slot)];
  if (!keeps_.any() || row.done > 0 || row.kept != nullptr) return;
  if (slot < length_ && slot < complete - keeps_.positions()) return;
  row.kept = keeps_.take();
}

const float* Sequence::kept_state(int slot, int layer) const {
  const Row& own = row(slot);
  const std::vector<int>& layers = keeps_.layers();
  if (!std::binary_search(layers.begin(), layers.end(), layer)) {
    std::string names;
    for (const int name : layers) names += (names.empty() ? "" : ", ") + std::to_string(name);
    throw RowError("states behind layer " + std::to_string(layer) + " are not kept: those kept are [" +
                   names + "]; name all layers in keep() before the rows are computed");
  }
  if (own.kept == nullptr)
    throw RowError(
        "the states of slot " + std::to_string(slot) +
        " are not kept: either it was begun before keep(), or it is complete and older than the latest " +
        std::to_string(keeps_.positions()) + " complete positions");
  if (own.done < layer)
    throw RowError("slot " + std::to_string(slot) + " has done " + std::to_string(own.done) +
                   " layers, not " + std::to_string(layer) + ": advance it first");
  return own.kept.get() + keeps_.offsets()[static_cast<size_t>(layer)];
}

void Sequence::retire() {
  for (; oldest_kept_ < complete_ - keeps_.positions(); ++oldest_kept_)
    keeps_.give(std::move(rows_[static_cast<size_t>(oldest_kept_)].kept));
}

}  // namespace specee
