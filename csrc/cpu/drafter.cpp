#include "cpu/drafter.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "specee/errors.h"

namespace specee {

std::unique_ptr<DrafterColumn> Drafter::column(int capacity, Dtype dtype, bool poison) {
  block_.reserve(capacity);
  return std::make_unique<DrafterColumn>(*this, block_.config(), capacity, dtype, poison);
}

std::vector<Chain> Drafter::draft(const std::vector<ChainCall>& calls, const DraftHead* head) {
  check(calls);
  std::vector<State> states = begin(calls);
  std::vector<Chain> chains(calls.size());
  std::vector<size_t> open(calls.size());
  std::iota(open.begin(), open.end(), size_t{0});
  for (;;) {
    draw(calls, open, states, head, chains);
    const auto done = [&](size_t i) {
      return static_cast<int>(chains[i].tokens.size()) == calls[i].length ||
             chains[i].confidences.back() < calls[i].stop_below;
    };
    open.erase(std::remove_if(open.begin(), open.end(), done), open.end());
    if (open.empty()) break;
    std::vector<DrafterBlock::Row> rows;
    for (const size_t i : open) {
      // Drafts stand behind the true positions, which do not know of them.
      DrafterColumn& column = *calls[i].column;
      const int slot = column.length() - 1 + static_cast<int>(chains[i].tokens.size());
      rows.push_back({&column.cache_,
                      slot,
                      static_cast<int>(chains[i].tokens.back()),
                      {},
                      states[i].data(),
                      states[i].data(),
                      0,
                      {}});
    }
    block_.run(rows);
  }
  for (const ChainCall& call : calls) call.column->cut(call.column->length());
  return chains;
}

void Drafter::check_distinct(std::vector<const DrafterColumn*> columns) {
  std::sort(columns.begin(), columns.end());
  if (std::adjacent_find(columns.begin(), columns.end()) != columns.end())
    throw RowError("a drafter's column appears twice in one call: give each sequence one of its own");
}

void Drafter::check(const ChainCall& call) const {
  const Sequence& sequence = *call.sequence;
  const int newest = sequence.length() - 1;
  check_owner(*call.column);
  if (call.length < 1)
    throw RowError("a chain of " + std::to_string(call.length) + " drafts: give 1 or more");
  if (!sequence.speculative().empty())
    throw RowError("a drafter drafts from the text alone: commit or drop the speculative rows first");
  if (newest < 1 || sequence.row(newest).done == model_.num_layers ||
      sequence.row(newest - 1).done != model_.num_layers || sequence.kept() < 1)
    throw RowError(
        "a drafter needs the states of the position before the newest one, which alone is not complete: "
        "keep() the layers that it reads, and advance all positions but the last");
  for (const int layer : block_.layers()) sequence.kept_state(newest - 1, layer);
  if (newest + call.length > call.column->capacity_)
    throw RowError("a drafter's column of " + std::to_string(call.column->capacity_) +
                   " positions has no room for " + std::to_string(call.length) + " drafts behind position " +
                   std::to_string(newest) + ": make it as long as the sequence");
}

void Drafter::check_owner(const DrafterColumn& column) const {
  if (column.owner_ != this)
    throw ConfigurationError("a column of another drafter: make columns with this one's column()");
}

// Lets go of what is not the text's any more, and begins anew behind a gap.
void Drafter::follow(const Spot& spot) const {
  const Sequence& sequence = *spot.sequence;
  DrafterColumn& column = *spot.column;
  const int last = spot.last;
  const int able = last - sequence.kept() + 1;  // the first position whose states before it are kept
  int same = 0;
  while (same < column.length() && column.first_ + same < last &&
         column.tokens_[static_cast<size_t>(same)] == sequence.row(column.first_ + same).token)
    ++same;
  if (column.first_ + same < able || column.first_ > last) {
    same = 0;
    column.first_ = able;
  }
  column.cut(same);
}

std::vector<Drafter::State> Drafter::begin(const std::vector<ChainCall>& calls) {
  std::vector<State> states(calls.size(), State(static_cast<size_t>(model_.hidden_size)));
  std::vector<Spot> spots;
  std::vector<State*> newest;
  for (size_t i = 0; i < calls.size(); ++i) {
    spots.push_back({calls[i].sequence, calls[i].column, calls[i].sequence->length() - 1});
    newest.push_back(&states[i]);
  }
  catch_up(spots, newest);
  return states;
}

// The newest position is made anew each time: what it gives is where drafts begin.
void Drafter::catch_up(const std::vector<Spot>& spots, const std::vector<State*>& newest) {
  std::vector<DrafterBlock::Row> rows;
  State unused(static_cast<size_t>(model_.hidden_size));
  for (size_t i = 0; i < spots.size(); ++i) {
    const auto& [source, target, last] = spots[i];
    const Sequence& sequence = *source;
    DrafterColumn& column = *target;
    follow(spots[i]);
    column.tail_ = {};  // what was guessed makes room
    for (int position = column.first_ + column.length(); position <= last; ++position) {
      std::vector<const float*> states;
      for (const int layer : block_.layers()) states.push_back(sequence.kept_state(position - 1, layer));
      rows.push_back({&column.cache_,
                      position - column.first_,
                      sequence.row(position).token,
                      std::move(states),
                      nullptr,
                      position == last ? newest[i]->data() : unused.data(),
                      0,
                      {}});
    }
  }
  block_.run(rows);
  for (const Spot& spot : spots)  // now that their keys and values are there
    for (int position = spot.column->first_ + spot.column->length(); position <= spot.last; ++position)
      spot.column->tokens_.push_back(spot.sequence->row(position).token);
}

// The next token of each chain that is open, from the block's state behind it.
void Drafter::draw(const std::vector<ChainCall>& calls, const std::vector<size_t>& open,
                   const std::vector<State>& states, const DraftHead* head, std::vector<Chain>& chains) {
  std::vector<const float*> hidden;
  std::vector<Draw> draws;
  for (const size_t i : open) {
    const Sequence& sequence = *calls[i].sequence;
    const std::vector<int64_t>& drafts = chains[i].tokens;
    hidden.push_back(states[i].data());
    draws.push_back({calls[i].sampling, static_cast<uint64_t>(sequence.length()) + drafts.size(), {}});
    if (calls[i].sampling.penalised()) draws.back().path = text_with(sequence, drafts);
  }
  std::vector<int64_t> tokens(open.size());
  std::vector<float> confidences(open.size());
  drawing_.draw(hidden, draws, head, tokens.data(), confidences.data());
  for (size_t j = 0; j < open.size(); ++j) {
    chains[open[j]].tokens.push_back(tokens[j]);
    chains[open[j]].confidences.push_back(confidences[j]);
  }
}

// Distinct tokens of the text and of drafts behind it, ascending.
std::vector<int> Drafter::text_with(const Sequence& sequence, const std::vector<int64_t>& drafts) const {
  std::vector<int> path = sequence.distinct_tokens(sequence.length() - 1);
  path.insert(path.end(), drafts.begin(), drafts.end());
  std::sort(path.begin(), path.end());
  path.erase(std::unique(path.begin(), path.end()), path.end());
  return path;
}

}  // namespace specee
