#include "cpu/rounds.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "cpu/engine.h"
#include "specee/errors.h"

namespace specee {
namespace {

using Clock = std::chrono::steady_clock;

void check_call(const RoundCall& call) {
  if (call.sequence->length() < 1)
    throw RowError("a round of a sequence without a text: append its prompt first");
  if (call.remaining < 1)
    throw RowError("a round of a sequence that may be given " + std::to_string(call.remaining) +
                   " tokens: allowed are 1 or more");
  if (call.drafts.column != nullptr && call.drafts.limits.nodes < 1)
    throw RowError("a round of " + std::to_string(call.drafts.limits.nodes) + " drafts: give 1 or more");
  if (call.copies.index != nullptr && call.copies.length < 1)
    throw RowError("a round with copies of " + std::to_string(call.copies.length) +
                   " tokens: give 1 or more");
}

// What is drafted in a round is all that is verified in it.
void check_alone(const RoundCall& call) {
  const size_t rows = call.sequence->speculative().size();
  if (rows > 0 && (call.drafts.column != nullptr || call.copies.index != nullptr))
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

// Whether there is a state to draft from: that of the position before the newest.
bool known(const Sequence& sequence, int layers) {
  const int before = sequence.length() - 2;
  return before >= 0 && sequence.kept() > 0 && sequence.row(before).done == layers;
}

// Drafts for one sequence before they are rows.
struct Drafted {
  std::vector<int> tokens, parents;
  std::vector<float> confidences;
};

bool is_end(const RoundCall& call, int64_t token) {
  return std::find(call.ends.begin(), call.ends.end(), token) != call.ends.end();
}

// Up to, and with, the first token that ends the text.
Drafted cut(const Chain& chain, const RoundCall& call) {
  Drafted made;
  for (size_t i = 0; i < chain.tokens.size(); ++i) {
    made.tokens.push_back(static_cast<int>(chain.tokens[i]));
    made.parents.push_back(static_cast<int>(i) - 1);
    made.confidences.push_back(chain.confidences[i]);
    if (is_end(call, chain.tokens[i])) break;
  }
  return made;
}

// The same of a copy, whose first token alone is drafted where it is not sure.
Drafted cut(const Copy& copy, const RoundCall& call) {
  Drafted made;
  for (const int token : copy.tokens) {
    made.parents.push_back(static_cast<int>(made.tokens.size()) - 1);
    made.tokens.push_back(token);
    made.confidences.push_back(copy.confidence);
    if (is_end(call, token) || copy.confidence < call.copies.stop_below) break;
  }
  return made;
}

// Without the nodes below one that ends the text.
Drafted cut(const Tree& tree, const RoundCall& call) {
  Drafted made;
  std::vector<int> place(tree.tokens.size(), -1);
  for (size_t i = 0; i < tree.tokens.size(); ++i) {
    const int parent = tree.parents[i];
    const size_t above = static_cast<size_t>(parent);
    if (parent >= 0 && (place[above] < 0 || is_end(call, tree.tokens[above]))) continue;
    place[i] = static_cast<int>(made.tokens.size());
    made.tokens.push_back(static_cast<int>(tree.tokens[i]));
    made.parents.push_back(parent < 0 ? -1 : place[above]);
    made.confidences.push_back(tree.chances[i]);
  }
  return made;
}

int depth_of(const Drafted& drafts) {
  std::vector<int> depths;
  for (const int parent : drafts.parents)
    depths.push_back(parent < 0 ? 1 : depths[static_cast<size_t>(parent)] + 1);
  return depths.empty() ? 0 : *std::max_element(depths.begin(), depths.end());
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
    if (!drafted || is_end(call, token) || static_cast<int>(result.tokens.size()) >= call.remaining)
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

  void run(Drafter* drafter, const DraftHead* head, const std::function<void()>& between) {
    Work work;
    for (const RoundCall& call : calls_) work.push_back({call.sequence, {}});
    engine_.check(work);
    for (const RoundCall& call : calls_) {
      check_call(call);
      check_alone(call);
    }
    check_distinct(calls_);
    draft(drafter, head);
    verify(work, between);
  }

 private:
  // Copies, and for the others chains side by side, then trees. All are drafted before any row is added.
  void draft(Drafter* drafter, const DraftHead* head) {
    std::vector<Drafted> made(calls_.size());
    copy(made);
    draft_with_block(drafter, head, made);
    for (size_t i = 0; i < calls_.size(); ++i) add(i, std::move(made[i]));
  }

  // This takes a few microseconds, the first time aside, when an index learns the prompt.
  void copy(std::vector<Drafted>& made) {
    const std::lock_guard<std::mutex> lock(engine_.mutex_);  // an index is one thread's at a time
    for (size_t i = 0; i < calls_.size(); ++i)
      if (const auto& [index, length, stop_below] = calls_[i].copies; index != nullptr) {
        made[i] = cut(index->lookup(*calls_[i].sequence, length), calls_[i]);
        results_[i].copied = !made[i].tokens.empty();
      }
  }

  void draft_with_block(Drafter* drafter, const DraftHead* head, std::vector<Drafted>& made) {
    const auto begin = Clock::now();
    std::vector<ChainCall> chains;
    std::vector<TreeCall> trees;
    std::vector<size_t> chained, branched;
    for (size_t i = 0; i < calls_.size(); ++i) {
      const auto& [sequence, sampling, ends, remaining, drafts, copies] = calls_[i];
      if (drafts.column == nullptr || results_[i].copied) continue;
      if (!known(*sequence, engine_.config().num_layers)) continue;
      if (drafter == nullptr) throw ConfigurationError("a round with drafts needs a drafter: give one");
      if (drafts.branched) {
        trees.push_back({sequence, drafts.column, drafts.limits, sampling});
        branched.push_back(i);
      } else {
        chains.push_back({sequence, drafts.column, drafts.limits.nodes, drafts.limits.stop_below, sampling});
        chained.push_back(i);
      }
    }
    if (chains.empty() && trees.empty()) return;
    if (!chains.empty()) {
      const std::vector<Chain> found = engine_.draft_chains(*drafter, chains, head);
      for (size_t j = 0; j < found.size(); ++j) made[chained[j]] = cut(found[j], calls_[chained[j]]);
    }
    if (!trees.empty()) {
      const std::vector<Tree> found = engine_.draft_trees(*drafter, trees, head);
      for (size_t j = 0; j < found.size(); ++j) made[branched[j]] = cut(found[j], calls_[branched[j]]);
    }
    seconds_.draft += std::chrono::duration<double>(Clock::now() - begin).count();
  }

  void add(size_t i, Drafted drafts) {
    Sequence& sequence = *calls_[i].sequence;
    if (!drafts.tokens.empty()) sequence.branch(drafts.tokens, &drafts.parents, sequence.last_committed());
    results_[i].depth = depth_of(drafts);
    results_[i].confidences = std::move(drafts.confidences);
  }

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
    if (results[i].copied || call.remaining < 1 || is_end(call, results[i].tokens.back())) return false;
    if (call.drafts.column != nullptr && call.drafts.limits.nodes >= call.remaining) return false;
    if (call.copies.index != nullptr && call.copies.length >= call.remaining) return false;
  }
  return true;
}

}  // namespace

std::vector<RoundTurn> Engine::run_rounds(std::vector<RoundCall> calls, Drafter* drafter,
                                          const DraftHead* head, const std::function<void()>& between,
                                          int turns) {
  if (turns < 1) throw RowError("rounds of " + std::to_string(turns) + " turns: give 1 or more");
  std::vector<RoundTurn> done;
  for (;;) {
    RoundTurn& turn = done.emplace_back();
    Rounds(*this, calls, turn).run(drafter, head, between);
    if (static_cast<int>(done.size()) == turns || !go_on(calls, turn.results)) break;
    between();
  }
  return done;
}

}  // namespace specee
