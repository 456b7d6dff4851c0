// Trees of drafts: a depth of all trees passes the block and the head together.
#include <algorithm>
#include <string>
#include <utility>

#include "cpu/drafter.h"
#include "specee/errors.h"

namespace specee {
namespace {

void check_limits(const TreeLimits& limits) {
  for (const auto& [value, what] : {std::pair{limits.nodes, "nodes"},
                                    {limits.depth, "drafts in a row"},
                                    {limits.width, "nodes with children at one depth"},
                                    {limits.children, "children of a node"}})
    if (value < 1) throw RowError("a tree of " + std::to_string(value) + " " + what + ": give 1 or more");
}

}  // namespace

struct Drafter::Growing {
  const TreeCall& call;
  TreeGrowth tree;
  std::vector<State> states;  // what the block gives for each node of the frontier
};

std::vector<Tree> Drafter::draft_trees(const std::vector<TreeCall>& calls, const DraftHead* head,
                                       Head& heads) {
  std::vector<RankCall> begins;  // behind the newest position
  for (const TreeCall& call : calls) {
    check_limits(call.limits);
    if (call.likely != 0) check_likely(call.likely, head);
    if (!call.sequence->speculative().empty())
      throw RowError("a drafter drafts from the text alone: commit or drop the speculative rows first");
    begins.push_back({call.sequence, call.column, call.sequence->length() - 1});
  }
  check(begins);
  guess(begins);
  std::vector<Growing> trees;
  for (const TreeCall& call : calls) {
    const int room = call.column->capacity_ - call.column->behind();
    trees.push_back({call, TreeGrowth(call.limits, room), {call.column->tail_.states.back()}});
  }
  for (bool open = !trees.empty(); open;) {
    branch(trees, head, heads);
    open = false;
    for (Growing& growing : trees) {
      growing.tree.deepen();
      open = open || !growing.tree.frontier().empty();
    }
    run(trees);
  }
  std::vector<Tree> made;
  for (const Growing& growing : trees) made.push_back(growing.tree.take());
  for (const TreeCall& call : calls) call.column->spoil(call.column->behind());
  return made;
}

// Children of every node of every frontier, from the states that the block gave for them.
// The likeliest tokens are these children where neither noise nor a penalty ranks them, and else another use
// of the head.
void Drafter::branch(std::vector<Growing>& trees, const DraftHead* head, Head& heads) {
  std::vector<const float*> hidden, apart;
  std::vector<Fork> forks;
  int most = 0;
  for (const Growing& growing : trees) {
    const Sequence& sequence = *growing.call.sequence;
    const Sampling& sampling = growing.call.sampling;
    for (size_t i = 0; i < growing.tree.frontier().size(); ++i) {
      const int node = growing.tree.frontier()[i];
      const uint64_t position = static_cast<uint64_t>(sequence.length() + growing.tree.depth(node));
      const int likely = growing.call.sampling.plain_greedy() ? growing.call.likely : 0;
      hidden.push_back(growing.states[i].data());
      forks.push_back({{sampling, position, {}}, std::max(growing.tree.limits().children, likely)});
      if (growing.call.likely > likely) {
        apart.push_back(hidden.back());
        most = std::max(most, growing.call.likely);
      }
      if (!sampling.penalised()) continue;
      std::vector<int64_t> drafts;
      for (const int above : growing.tree.path(node)) drafts.push_back(growing.tree.token(above));
      forks.back().draw.path = text_with(sequence, drafts);
    }
  }
  std::vector<std::vector<Branch>> found = branching_.draw(hidden, forks, head);
  std::vector<Likely> known;
  if (!apart.empty()) known = likeliest(apart, most, head, heads);
  auto next = found.begin();
  auto other = known.begin();
  for (Growing& growing : trees)
    for (size_t i = 0; i < growing.tree.frontier().size(); ++i) {
      std::vector<Branch>& branches = *next++;
      if (growing.call.likely > 0) {
        Likely likely;
        if (growing.call.sampling.plain_greedy())
          for (const Branch& one : branches) likely.push_back(static_cast<int>(one.token));
        else
          likely = std::move(*other++);
        likely.resize(static_cast<size_t>(growing.call.likely));
        growing.tree.note(i, std::move(likely));
      }
      const size_t children = static_cast<size_t>(growing.tree.limits().children);
      if (branches.size() > children) branches.resize(children);
      growing.tree.add(i, branches);
    }
}

// The block's states for the nodes of the new frontiers, each from its parent's. A node attends to the text
// and to the nodes on its path, wherever in the column these are.
void Drafter::run(std::vector<Growing>& trees) {
  std::vector<DrafterBlock::Row> rows;
  std::vector<std::vector<State>> given;
  for (Growing& growing : trees) {
    const std::vector<int>& frontier = growing.tree.frontier();
    given.emplace_back(frontier.size(), State(static_cast<size_t>(model_.hidden_size)));
    DrafterColumn& column = *growing.call.column;
    for (size_t i = 0; i < frontier.size(); ++i) {
      std::vector<int32_t> path;
      for (const int node : growing.tree.path(frontier[i]))
        path.push_back(column.behind() + growing.tree.place(node));
      const int slot = path.back();
      rows.push_back({&column.cache_,
                      slot,
                      growing.tree.token(frontier[i]),
                      {},
                      growing.states[growing.tree.parent_in_frontier(i)].data(),
                      given.back()[i].data(),
                      column.behind(),
                      std::move(path)});
    }
  }
  if (!rows.empty()) block_.run(rows);
  for (size_t i = 0; i < trees.size(); ++i) trees[i].states = std::move(given[i]);
}

}  // namespace specee
