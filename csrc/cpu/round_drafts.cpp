// What a round drafts, as speculative rows: copies, chains and trees of a block, and rows that wait behind
// shallow layers.
#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <utility>

#include "cpu/engine.h"
#include "specee/errors.h"

namespace specee {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Drafts for one sequence before they are rows.
struct Drafted {
  std::vector<int> tokens, parents;
  std::vector<float> confidences;
};

// Up to, and with, the first token that ends the text.
Drafted cut(const Chain& chain, const RoundCall& call) {
  Drafted made;
  for (size_t i = 0; i < chain.tokens.size(); ++i) {
    made.tokens.push_back(static_cast<int>(chain.tokens[i]));
    made.parents.push_back(static_cast<int>(i) - 1);
    made.confidences.push_back(chain.confidences[i]);
    if (call.ends_with(chain.tokens[i])) break;
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
    if (call.ends_with(token) || copy.confidence < call.copies.stop_below) break;
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
    if (parent >= 0 && (place[above] < 0 || call.ends_with(tree.tokens[above]))) continue;
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

// Whether there is a state to draft from: that of the position before the newest.
bool known(const Sequence& sequence, int layers) {
  const int before = sequence.length() - 2;
  return before >= 0 && sequence.kept() > 0 && sequence.row(before).done == layers;
}

// Whether the block can guess after rows that wait: a state before the first of them is kept.
bool guessable(const Sequence& sequence) {
  const int complete = sequence.frontier().back();
  return complete > 0 && complete < sequence.length() && sequence.kept() > 0;
}

}  // namespace

// One call of Engine::draft_round().
class RoundDrafting {
 public:
  RoundDrafting(Engine& engine, const std::vector<RoundCall>& calls, const RoundParts& parts,
                const std::function<void()>& between, std::vector<RoundResult>& results,
                RoundSeconds& seconds)
      : engine_(engine),
        calls_(calls),
        parts_(parts),
        between_(between),
        results_(results),
        seconds_(seconds) {}

  // What is drafted before it is rows comes first: a block drafts beside no rows.
  void run() {
    check();
    std::vector<Drafted> made(calls_.size());
    copy(made);
    draft_with_block(made);
    for (size_t i = 0; i < calls_.size(); ++i) add(i, std::move(made[i]));
    draft_at_layers();
    draft_where_sure();
  }

 private:
  void check() const {
    for (const RoundCall& call : calls_) {
      const RoundDrafts& drafts = call.drafts;
      if (drafts.kind == DraftKind::layer) {
        engine_.check(drafts.head);
        check_exit_layer(drafts.layers.at(0));
      } else if (drafts.kind != DraftKind::none && parts_.drafter == nullptr) {
        throw ConfigurationError("a round with drafts needs a drafter: give one");
      }
      if (drafts.kind != DraftKind::exits) continue;
      if (parts_.exits == nullptr)
        throw ConfigurationError("a round with predicted exits needs exit predictors: give some");
      for (const int layer : drafts.layers) parts_.exits->of(layer);
    }
  }

  // Behind the last one there is nothing to verify.
  void check_exit_layer(int layer) const {
    const int layers = engine_.config().num_layers;
    if (layer < 1 || layer >= layers)
      throw RowError("cannot draft at layer " + std::to_string(layer) + " of " + std::to_string(layers) +
                     ": allowed are 1.." + std::to_string(layers - 1));
  }

  // Calls that want drafts of that kind, and have not got copies.
  std::vector<size_t> wanting(DraftKind kind) const {
    std::vector<size_t> found;
    for (size_t i = 0; i < calls_.size(); ++i)
      if (calls_[i].drafts.kind == kind && !results_[i].copied) found.push_back(i);
    return found;
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

  // Chains side by side, then trees.
  void draft_with_block(std::vector<Drafted>& made) {
    const auto begin = Clock::now();
    const std::vector<size_t> chained = with_states(DraftKind::chain),
                              branched = with_states(DraftKind::tree);
    if (chained.empty() && branched.empty()) return;
    std::vector<ChainCall> chains;
    for (const size_t i : chained) {
      const RoundDrafts& drafts = calls_[i].drafts;
      chains.push_back({calls_[i].sequence, drafts.column, drafts.limits.nodes, drafts.limits.stop_below,
                        calls_[i].sampling});
    }
    std::vector<TreeCall> trees;
    for (const size_t i : branched)
      trees.push_back(
          {calls_[i].sequence, calls_[i].drafts.column, calls_[i].drafts.limits, calls_[i].sampling});
    if (!chains.empty()) {
      const std::vector<Chain> found = engine_.draft_chains(*parts_.drafter, chains, parts_.head);
      for (size_t j = 0; j < found.size(); ++j) made[chained[j]] = cut(found[j], calls_[chained[j]]);
    }
    if (!trees.empty()) {
      const std::vector<Tree> found = engine_.draft_trees(*parts_.drafter, trees, parts_.head);
      for (size_t j = 0; j < found.size(); ++j) made[branched[j]] = cut(found[j], calls_[branched[j]]);
    }
    seconds_.draft += since(begin);
  }

  std::vector<size_t> with_states(DraftKind kind) const {
    std::vector<size_t> found = wanting(kind);
    const int layers = engine_.config().num_layers;
    found.erase(std::remove_if(found.begin(), found.end(),
                               [&](size_t i) { return !known(*calls_[i].sequence, layers); }),
                found.end());
    return found;
  }

  void add(size_t i, Drafted drafts) {
    Sequence& sequence = *calls_[i].sequence;
    if (!drafts.tokens.empty()) sequence.branch(drafts.tokens, &drafts.parents, sequence.last_committed());
    results_[i].depth = depth_of(drafts);
    results_[i].confidences = std::move(drafts.confidences);
  }

  // A draft a turn for all that go on. A layer's weights are read once for all that pass it.
  void draft_at_layers() {
    for (std::vector<size_t> open = wanting(DraftKind::layer); !open.empty();) {
      const auto begin = Clock::now();
      lower(open);
      seconds_.draft += since(begin);
      const auto middle = Clock::now();
      std::vector<int64_t> tokens(open.size());
      std::vector<float> confidences(open.size());
      draw(open, tokens, confidences);
      seconds_.draft_head += since(middle);
      std::vector<size_t> still;
      for (size_t j = 0; j < open.size(); ++j)
        if (extend(open[j], tokens[j], confidences[j])) still.push_back(open[j]);
      open = std::move(still);
    }
  }

  // Every tip to its layer.
  void lower(const std::vector<size_t>& open) {
    std::vector<int> layers;
    for (const size_t i : open) layers.push_back(exit_layer(i));
    std::sort(layers.begin(), layers.end());
    layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
    for (const int layer : layers) {
      Work passing;
      for (const size_t i : open)
        if (exit_layer(i) >= layer) passing.push_back({calls_[i].sequence, {tip(i)}});
      engine_.advance(passing, layer, between_);
    }
  }

  // With the noise that the full model's token will have; those of the same head together.
  void draw(const std::vector<size_t>& open, std::vector<int64_t>& tokens, std::vector<float>& confidences) {
    std::vector<const DraftHead*> heads;
    for (const size_t i : open) heads.push_back(calls_[i].drafts.head);
    std::sort(heads.begin(), heads.end(), std::less<>());
    heads.erase(std::unique(heads.begin(), heads.end()), heads.end());
    for (const DraftHead* head : heads) {
      Work work;
      std::vector<Sampling> sampling;
      std::vector<size_t> places;
      for (size_t j = 0; j < open.size(); ++j) {
        if (calls_[open[j]].drafts.head != head) continue;
        work.push_back({calls_[open[j]].sequence, {tip(open[j])}});
        sampling.push_back(calls_[open[j]].sampling);
        places.push_back(j);
      }
      std::vector<int64_t> drawn(places.size());
      std::vector<float> shares(places.size());
      engine_.draft(work, sampling, head, drawn.data(), shares.data());
      for (size_t k = 0; k < places.size(); ++k) {
        tokens[places[k]] = drawn[k];
        confidences[places[k]] = shares[k];
      }
    }
  }

  // SpecEE's exits, all verified: a draft a turn as long as predictors are sure.
  void draft_where_sure() {
    std::vector<size_t> open;
    for (const size_t i : wanting(DraftKind::exits))
      if (!calls_[i].drafts.layers.empty() && guessable(*calls_[i].sequence)) open.push_back(i);
    while (!open.empty()) {
      std::vector<ExitCall> leaving;
      for (const size_t i : open) {
        const RoundDrafts& drafts = calls_[i].drafts;
        leaving.push_back(
            {calls_[i].sequence, drafts.column, tip(i), drafts.layers, drafts.threshold, calls_[i].sampling});
      }
      ExitSeconds spent;
      const std::vector<Exit> found =
          engine_.leave_early(*parts_.drafter, *parts_.exits, leaving, parts_.head, false, between_, spent);
      seconds_.draft += spent.draft + spent.layers;
      std::vector<size_t> still;
      for (size_t j = 0; j < open.size(); ++j) {
        if (found[j].layer == 0) continue;
        results_[open[j]].exits.push_back(found[j].layer);
        if (extend(open[j], found[j].token, found[j].confidence)) still.push_back(open[j]);
      }
      open = std::move(still);
    }
  }

  int exit_layer(size_t i) const { return calls_[i].drafts.layers.front(); }

  // Slot of the newest draft, or of the text's end.
  int tip(size_t i) const {
    const Sequence& sequence = *calls_[i].sequence;
    return results_[i].depth == 0 ? sequence.last_committed() : sequence.speculative().back();
  }

  // One more draft below the newest; whether there may be another.
  bool extend(size_t i, int64_t token, float confidence) {
    const RoundCall& call = calls_[i];
    RoundResult& result = results_[i];
    call.sequence->branch({static_cast<int>(token)}, nullptr, tip(i));
    result.confidences.push_back(confidence);
    ++result.depth;
    const TreeLimits& limits = call.drafts.limits;
    return result.depth < limits.nodes && !call.ends_with(token) && !(confidence < limits.stop_below);
  }

  Engine& engine_;
  const std::vector<RoundCall>& calls_;
  const RoundParts& parts_;
  const std::function<void()>& between_;
  std::vector<RoundResult>& results_;
  RoundSeconds& seconds_;
};

void Engine::draft_round(const std::vector<RoundCall>& calls, const RoundParts& parts,
                         const std::function<void()>& between, std::vector<RoundResult>& results,
                         RoundSeconds& seconds) {
  RoundDrafting(*this, calls, parts, between, results, seconds).run();
}

}  // namespace specee
