#include "cpu/draft_tree.h"

#include <algorithm>
#include <numeric>

namespace specee {

std::vector<int> TreeGrowth::path(int node) const {
  std::vector<int> found;
  for (; node != kRoot; node = parent(node)) found.push_back(node);
  std::reverse(found.begin(), found.end());
  return found;
}

size_t TreeGrowth::parent_in_frontier(size_t i) const {
  const auto found = std::find(before_.begin(), before_.end(), parent(frontier_[i]));
  return static_cast<size_t>(found - before_.begin());
}

void TreeGrowth::add(size_t i, const std::vector<Branch>& children) {
  const int parent = frontier_[i];
  const float before = parent == kRoot ? 1.0f : nodes_[static_cast<size_t>(parent)].chance;
  for (const Branch& child : children) {
    const float chance = before * child.share;
    // Something is drafted in any case: a round without drafts would teach nobody anything.
    if (chance < limits_.stop_below && !nodes_.empty()) continue;
    nodes_.push_back({child.token, parent, depth(parent) + 1, -1, chance});
  }
}

// Chances never grow along a path, so nothing below a node that is not among the best by now can be kept.
void TreeGrowth::deepen() {
  before_.swap(frontier_);
  frontier_.clear();
  const int most = std::min(limits_.width, room_);
  float together = 0.0f;
  if (!nodes_.empty() && nodes_.back().depth < limits_.depth)
    for (const int node : best())
      if (node >= static_cast<int>(newest_) && static_cast<int>(frontier_.size()) < most) {
        frontier_.push_back(node);
        together += nodes_[static_cast<size_t>(node)].chance;
      }
  newest_ = nodes_.size();
  if (together < limits_.deepen_from) frontier_.clear();
  for (const int node : frontier_) nodes_[static_cast<size_t>(node)].place = placed_++;
  room_ -= static_cast<int>(frontier_.size());
}

std::vector<int> TreeGrowth::best() const {
  std::vector<int> order(nodes_.size());
  std::iota(order.begin(), order.end(), 0);
  const size_t count = std::min(order.size(), static_cast<size_t>(limits_.nodes));
  const auto likelier = [&](int a, int b) {
    const float first = nodes_[static_cast<size_t>(a)].chance, second = nodes_[static_cast<size_t>(b)].chance;
    return first > second || (first == second && a < b);
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(count), order.end(), likelier);
  order.resize(count);
  return order;
}

Tree TreeGrowth::take() const {
  const std::vector<int> kept = best();
  std::vector<int> index(nodes_.size());
  for (size_t i = 0; i < kept.size(); ++i) index[static_cast<size_t>(kept[i])] = static_cast<int>(i);
  Tree tree;
  for (const int node : kept) {
    const Node& one = nodes_[static_cast<size_t>(node)];
    tree.tokens.push_back(one.token);
    tree.parents.push_back(one.parent == kRoot ? kRoot : index[static_cast<size_t>(one.parent)]);
    tree.chances.push_back(one.chance);
  }
  if (likely_.empty()) return tree;
  const auto after = [&](int node) {
    const auto found = likely_.find(node);
    return found == likely_.end() ? Likely() : found->second;
  };
  tree.likely.push_back(after(kRoot));
  for (const int node : kept) tree.likely.push_back(after(node));
  return tree;
}

}  // namespace specee
