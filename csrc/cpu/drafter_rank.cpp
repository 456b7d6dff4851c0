// Candidates of SpecEE's predictors: what the block finds likeliest after a row, at whatever depth it waits.
#include <algorithm>
#include <string>

#include "cpu/drafter.h"
#include "specee/errors.h"

namespace specee {
namespace {

int complete(const Sequence& sequence) { return sequence.frontier().back(); }

// Tokens from the first position that is not complete up to and with the row in `slot`.
std::vector<int> waiting_text(const Sequence& sequence, int slot) {
  std::vector<int> tokens;
  const int committed = std::min(slot, sequence.length() - 1);
  for (int position = complete(sequence); position <= committed; ++position)
    tokens.push_back(sequence.row(position).token);
  for (const int row : sequence.path(slot)) tokens.push_back(sequence.row(row).token);
  return tokens;
}

}  // namespace

std::vector<std::vector<int>> Drafter::rank(const std::vector<RankCall>& calls, int k, const DraftHead* head,
                                            Head& heads) {
  check_likely(k, head);
  check(calls);
  guess(calls);
  std::vector<const float*> states;
  for (const RankCall& call : calls) states.push_back(call.column->tail_.states.back().data());
  return likeliest(states, k, head, heads);
}

// Makes each column's tail end with what the block gives behind the row.
void Drafter::guess(const std::vector<RankCall>& calls) {
  std::vector<std::vector<int>> texts;
  for (const RankCall& call : calls) texts.push_back(waiting_text(*call.sequence, call.slot));
  resume(calls, texts);
  extend(calls, texts);
}

void Drafter::check_likely(int k, const DraftHead* head) const {
  const int tokens = head != nullptr ? head->matrix().outputs() : model_.vocab_size;
  if (k < 1 || k > tokens)
    throw RowError("the " + std::to_string(k) + " likeliest tokens: 1 to " + std::to_string(tokens) +
                   " are possible, as many as the draft vocabulary has");
}

std::vector<Likely> Drafter::likeliest(const std::vector<const float*>& states, int k, const DraftHead* head,
                                       Head& heads) {
  const size_t wanted = static_cast<size_t>(k);
  std::vector<int64_t> ids(states.size() * wanted);
  std::vector<float> values(ids.size());
  heads.topk(states, head, k, ids.data(), values.data());
  std::vector<Likely> found;
  for (size_t i = 0; i < states.size(); ++i) {
    const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(i * wanted);
    found.emplace_back(begin, begin + k);
  }
  return found;
}

void Drafter::check(const RankCall& call) const {
  const Sequence& sequence = *call.sequence;
  check_owner(*call.column);
  const Row& row = sequence.row(call.slot);
  const int first = complete(sequence);
  if (row.position < first || first < 1 || first == sequence.length() || sequence.kept() < 1)
    throw RowError(
        "a drafter guesses the token after a row of a text whose newest position is not complete, from "
        "states "
        "of complete ones: keep() the layers that it reads, and name a row that waits");
  for (const int layer : block_.layers()) sequence.kept_state(first - 1, layer);
  if (row.position >= call.column->capacity_)
    throw RowError("a drafter's column of " + std::to_string(call.column->capacity_) +
                   " positions has no room for position " + std::to_string(row.position) +
                   ": make it as long as the sequence");
}

// Tails that are not of this text any more begin anew, with the position that has a true state before it.
void Drafter::resume(const std::vector<RankCall>& calls, const std::vector<std::vector<int>>& texts) {
  std::vector<size_t> anew;
  for (size_t i = 0; i < calls.size(); ++i) {
    DrafterColumn& column = *calls[i].column;
    const Sequence& sequence = *calls[i].sequence;
    const int base = complete(sequence);
    bool same = column.tail_.base == base && column.first_ + column.length() == base + 1;
    for (int at = 0; same && at < column.length(); ++at) {
      const int position = column.first_ + at;
      const int token = position < base ? sequence.row(position).token : texts[i].front();
      same = column.tokens_[static_cast<size_t>(at)] == token;
    }
    if (same) continue;
    anew.push_back(i);
  }
  if (anew.empty()) return;  // most calls: texts have grown by a token that was guessed past
  std::vector<State> states(anew.size(), State(static_cast<size_t>(model_.hidden_size)));
  std::vector<Spot> spots;
  std::vector<State*> newest;
  for (size_t j = 0; j < anew.size(); ++j) {
    const RankCall& call = calls[anew[j]];
    spots.push_back({call.sequence, call.column, complete(*call.sequence)});
    newest.push_back(&states[j]);
  }
  catch_up(spots, newest);
  for (size_t j = 0; j < anew.size(); ++j)
    calls[anew[j]].column->tail_ = {spots[j].last, {texts[anew[j]].front()}, {std::move(states[j])}};
}

// Lets go of guesses for other tokens, and takes the block along the rest of the text.
void Drafter::extend(const std::vector<RankCall>& calls, const std::vector<std::vector<int>>& texts) {
  for (size_t i = 0; i < calls.size(); ++i) {
    DrafterColumn::Tail& tail = calls[i].column->tail_;
    size_t same = 0;
    while (same < tail.tokens.size() && same < texts[i].size() && tail.tokens[same] == texts[i][same]) ++same;
    tail.tokens.resize(same);
    tail.states.resize(same);
  }
  for (;;) {
    std::vector<DrafterBlock::Row> rows;
    for (size_t i = 0; i < calls.size(); ++i) {
      DrafterColumn& column = *calls[i].column;
      DrafterColumn::Tail& tail = column.tail_;
      const size_t done = tail.tokens.size();
      if (done == texts[i].size()) continue;
      const int slot = tail.base - column.first_ + static_cast<int>(done);
      tail.tokens.push_back(texts[i][done]);
      tail.states.emplace_back(static_cast<size_t>(model_.hidden_size));
      rows.push_back({&column.cache_,
                      slot,
                      texts[i][done],
                      {},
                      tail.states[done - 1].data(),
                      tail.states[done].data(),
                      0,
                      {}});
    }
    if (rows.empty()) return;
    block_.run(rows);
  }
}

}  // namespace specee
