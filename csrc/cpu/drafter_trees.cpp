// Trees of drafts: a depth of all trees passes the block and the head together.
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

std::vector<Tree> Drafter::draft_trees(const std::vector<TreeCall>& calls, const DraftHead* head) {
  std::vector<ChainCall> begins;  // a tree begins where a chain does
  for (const TreeCall& call : calls) {
    check_limits(call.limits);
    begins.push_back({call.sequence, call.column, 1, 0.0f, call.sampling});
  }
  check(begins);
  std::vector<State> newest = begin(begins);
  std::vector<Growing> trees;
  for (size_t i = 0; i < calls.size(); ++i) {
    const int room = calls[i].column->capacity_ - calls[i].column->length();
    trees.push_back({calls[i], TreeGrowth(calls[i].limits, room), {std::move(newest[i])}});
  }
  for (bool open = !trees.empty(); open;) {
    branch(trees, head);
    open = false;
    for (Growing& growing : trees) {
      growing.tree.deepen();
      open = open || !growing.tree.frontier().empty();
    }
    run(trees);
  }
  std::vector<Tree> made;
  for (const Growing& growing : trees) made.push_back(growing.tree.take());
  for (const TreeCall& call : calls) call.column->cut(call.column->length());
  return made;
}

// Children of every node of every frontier, from the states that the block gave for them.
void Drafter::branch(std::vector<Growing>& trees, const DraftHead* head) {
  std::vector<const float*> hidden;
  std::vector<Fork> forks;
  for (const Growing& growing : trees) {
    const Sequence& sequence = *growing.call.sequence;
    const Sampling& sampling = growing.call.sampling;
    for (size_t i = 0; i < growing.tree.frontier().size(); ++i) {
      const int node = growing.tree.frontier()[i];
      const uint64_t position = static_cast<uint64_t>(sequence.length() + growing.tree.depth(node));
      hidden.push_back(growing.states[i].data());
      forks.push_back({{sampling, position, {}}, growing.tree.limits().children});
      if (!sampling.penalised()) continue;
      std::vector<int64_t> drafts;
      for (const int above : growing.tree.path(node)) drafts.push_back(growing.tree.token(above));
      forks.back().draw.path = text_with(sequence, drafts);
    }
  }
  const std::vector<std::vector<Branch>> found = branching_.draw(hidden, forks, head);
  auto next = found.begin();
  for (Growing& growing : trees)
    for (size_t i = 0; i < growing.tree.frontier().size(); ++i) growing.tree.add(i, *next++);
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
        path.push_back(column.length() + growing.tree.place(node));
      const int slot = path.back();
      rows.push_back({&column.cache_,
                      slot,
                      growing.tree.token(frontier[i]),
                      {},
                      growing.states[growing.tree.parent_in_frontier(i)].data(),
                      given.back()[i].data(),
                      column.length(),
                      std::move(path)});
    }
  }
  if (!rows.empty()) block_.run(rows);
  for (size_t i = 0; i < trees.size(); ++i) trees[i].states = std::move(given[i]);
}

}  // namespace specee
