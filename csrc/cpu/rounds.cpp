#include "cpu/rounds.h"

#include <algorithm>
#include <string>
#include <utility>

#include "cpu/engine.h"
#include "specee/errors.h"

namespace specee {
namespace {

bool drafting(const RoundCall& call) { return call.drafts.kind != DraftKind::none; }

void check_call(const RoundCall& call) {
  if (call.sequence->length() < 1)
    throw RowError("a round of a sequence without a text: append its prompt first");
  if (call.remaining < 1)
    throw RowError("a round of a sequence that may be given " + std::to_string(call.remaining) +
                   " tokens: allowed are 1 or more");
  if (drafting(call) && call.drafts.limits.nodes < 1)
    throw RowError("a round of " + std::to_string(call.drafts.limits.nodes) + " drafts: give 1 or more");
  if (call.copies.index != nullptr && call.copies.length < 1)
    throw RowError("a round with copies of " + std::to_string(call.copies.length) +
                   " tokens: give 1 or more");
}

// What is drafted in a round is all that is verified in it.
void check_alone(const RoundCall& call) {
  const size_t rows = call.sequence->speculative().size();
  if (rows > 0 && (drafting(call) || call.copies.index != nullptr))
    throw RowError("a round is to draft while " + std::to_string(rows) +
                   " speculative rows are live: commit a path (an empty one drops them all) first");
}

// An index follows one text.
void check_distinct(const std::vector<RoundCall>& calls) {
  std::vector<const NgramIndex*> indices;
  for (const RoundCall& call : calls)
    if (call.copies.index != nullptr) indices.push_back(call.copies.index);
  std::sort(indices.begin(), indices.end());
  if (std::adjacent_find(indices.begin(), indices.end()) != indices.end())
    throw RowError("an index of n-grams appears twice in one call: give each sequence one of its own");
}

// The newest committed row and all drafts.
std::vector<int> rows_of(const Sequence& sequence) {
  std::vector<int> rows = sequence.speculative();
  rows.insert(rows.begin(), sequence.last_committed());
  return rows;
}

// Follows the full model's tokens down from the newest row: `rows` with a token after each.
RoundResult walk(const RoundCall& call, const std::vector<int>& rows, const int64_t* after) {
  const Sequence& sequence = *call.sequence;
  RoundResult result;
  for (size_t at = 0;;) {
    const int64_t token = after[at];
    result.tokens.push_back(token);
    size_t child = 1;
    while (child < rows.size() && (sequence.row(rows[child]).parent != rows[at] ||
                                   sequence.row(rows[child]).token != static_cast<int>(token)))
      ++child;
    const bool drafted = child < rows.size();
    if (drafted) result.accepted.push_back(rows[child]);
    if (!drafted || call.ends_with(token) || static_cast<int>(result.tokens.size()) >= call.remaining)
      return result;
    at = child;
  }
}

// Throws CapacityError where the longest path of drafts, and a token behind it, may not find room.
void check_room(const RoundCall& call) {
  const Sequence& sequence = *call.sequence;
  int deepest = sequence.last_committed();
  for (const int slot : sequence.speculative()) deepest = std::max(deepest, sequence.row(slot).position);
  const int most = std::min(call.remaining, deepest - sequence.last_committed() + 1);
  if (most > sequence.capacity() - sequence.length())
    throw CapacityError(
        "a round may give " + std::to_string(most) + " tokens, and " +
        std::to_string(sequence.capacity() - sequence.length()) + " of " +
        std::to_string(sequence.capacity()) +
        " slots are free: reserve a longer sequence, or give `remaining` what it has room for");
}

// Accepted drafts become text, all others go, and the token behind them is appended.
void settle(Sequence& sequence, const RoundResult& result) {
  sequence.commit(result.accepted);
  if (result.tokens.size() > result.accepted.size())
    sequence.append({static_cast<int>(result.tokens.back())});
}

}  // namespace

// One turn of Engine::run_rounds(): a round of every call.
class Rounds {
 public:
  Rounds(Engine& engine, const std::vector<RoundCall>& calls, RoundTurn& turn)
      : engine_(engine), calls_(calls), seconds_(turn.seconds), results_(turn.results) {
    results_.resize(calls.size());
  }

  void run(const RoundParts& parts, const std::function<void()>& between) {
    Work work;
    for (const RoundCall& call : calls_) work.push_back({call.sequence, {}});
    engine_.check(work);
    for (const RoundCall& call : calls_) {
      check_call(call);
      check_alone(call);
    }
    check_distinct(calls_);
    engine_.draft_round(calls_, parts, between, results_, seconds_);
    verify(work, between);
  }

 private:
  // Nothing is text before all of it is known.
  void verify(Work& work, const std::function<void()>& between) {
    std::vector<Sampling> sampling;
    bool greedy = true;
    for (size_t i = 0; i < calls_.size(); ++i) {
      check_room(calls_[i]);
      work[i].slots = rows_of(*calls_[i].sequence);
      sampling.insert(sampling.end(), work[i].slots.size(), calls_[i].sampling);
      greedy = greedy && calls_[i].sampling.plain_greedy();
    }
    std::vector<int64_t> after(sampling.size());
    const Engine::Seconds spent = engine_.verify(work, greedy ? nullptr : &sampling, between, after.data());
    seconds_.layers += spent.layers;
    seconds_.head += spent.head;
    const int64_t* own = after.data();
    for (size_t i = 0; i < calls_.size(); ++i) {
      RoundResult walked = walk(calls_[i], work[i].slots, own);
      results_[i].tokens = std::move(walked.tokens);
      results_[i].accepted = std::move(walked.accepted);
      own += work[i].slots.size();
    }
    for (size_t i = 0; i < calls_.size(); ++i) settle(*calls_[i].sequence, results_[i]);
  }

  Engine& engine_;
  const std::vector<RoundCall>& calls_;
  RoundSeconds& seconds_;
  std::vector<RoundResult>& results_;
};

namespace {

// Takes what a turn gave off what is left; whether there can be another turn that nobody has to be asked for.
bool go_on(std::vector<RoundCall>& calls, const std::vector<RoundResult>& results) {
  for (size_t i = 0; i < calls.size(); ++i) {
    RoundCall& call = calls[i];
    call.remaining -= static_cast<int>(results[i].tokens.size());
    if (results[i].copied || call.remaining < 1 || call.ends_with(results[i].tokens.back())) return false;
    if (drafting(call) && call.drafts.limits.nodes >= call.remaining) return false;
    if (call.copies.index != nullptr && call.copies.length >= call.remaining) return false;
  }
  return true;
}

}  // namespace

std::vector<RoundTurn> Engine::run_rounds(std::vector<RoundCall> calls, const RoundParts& parts,
                                          const std::function<void()>& between, int turns) {
  if (turns < 1) throw RowError("rounds of " + std::to_string(turns) + " turns: give 1 or more");
  std::vector<RoundTurn> done;
  for (;;) {
    RoundTurn& turn = done.emplace_back();
    Rounds(*this, calls, turn).run(parts, between);
    if (static_cast<int>(done.size()) == turns || !go_on(calls, turn.results)) break;
    between();
  }
  return done;
}

}  // namespace specee
