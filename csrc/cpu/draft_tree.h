// A tree of drafts while it grows, by what is likeliest: EAGLE-2 (Li et al., EMNLP 2024). Numbers only: who
// computes states and draws tokens is drafter.h's business.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "cpu/branching.h"

namespace specee {

// How large a tree may be. A node's chance is the product of the shares on its path.
struct TreeLimits {
  int nodes;          // kept, at most
  int depth;          // drafts in a row
  int width;          // nodes of one depth that get children
  int children;       // of a node
  float stop_below;   // no node has a smaller chance, the likeliest first one aside
  float deepen_from;  // no deeper, where all nodes that would get children have less chance together
};

// Tokens that may come after a node, likeliest first; empty where nobody looked.
using Likely = std::vector<int>;

// The nodes kept, likeliest first, the one made first among equals: parents come before their children.
struct Tree {
  std::vector<int64_t> tokens;
  std::vector<int> parents;  // indices, -1 for the text's end
  std::vector<float> chances;
  std::vector<Likely> likely;  // after the text's end, then after each node; empty if nobody asked
};

class TreeGrowth {
 public:
  // `room`: how many nodes may get children at all.
  TreeGrowth(const TreeLimits& limits, int room) : limits_(limits), room_(room), frontier_{kRoot} {}

  static constexpr int kRoot = -1;
  // Nodes whose children are wanted now; at first the root.
  const std::vector<int>& frontier() const { return frontier_; }
  const TreeLimits& limits() const { return limits_; }
  int token(int node) const { return static_cast<int>(nodes_[static_cast<size_t>(node)].token); }
  int parent(int node) const { return nodes_[static_cast<size_t>(node)].parent; }
  int depth(int node) const { return node == kRoot ? 0 : nodes_[static_cast<size_t>(node)].depth; }
  // The node's number among those that have, or get, children, the root not counted, in the order in which
  // they joined the frontier.
  int place(int node) const { return nodes_[static_cast<size_t>(node)].place; }
  // Which of the frontier before was the parent of frontier()[i].
  size_t parent_in_frontier(size_t i) const;
  // From below the root down to the node.
  std::vector<int> path(int node) const;

  // Children of frontier()[i], best first; once for each i, ascending.
  void add(size_t i, const std::vector<Branch>& children);
  // What may come after frontier()[i], to be had from take() again.
  void note(size_t i, Likely likely) { likely_[frontier_[i]] = std::move(likely); }
  // On to the next depth when all have theirs: frontier() is empty when the tree is done.
  void deepen();
  Tree take() const;

 private:
  struct Node {
    int64_t token;
    int parent, depth, place;
    float chance;
  };
  std::vector<int> best() const;  // at most limits_.nodes of all, likeliest first

  const TreeLimits limits_;
  int room_;
  std::vector<Node> nodes_;
  std::vector<int> frontier_, before_;
  size_t newest_ = 0;  // the first node of the newest depth
  int placed_ = 0;
  std::map<int, Likely> likely_;  // by node
};

}  // namespace specee
