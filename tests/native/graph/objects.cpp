#include "objects.h"

#include <algorithm>
#include <cstring>

#include "../cuda/block.h"
#include "kernels.h"

namespace fake {
namespace {

// Of the launch that is running: what conditions are, as far as they have been set.
std::map<Handle, unsigned> conditions;

std::string run_node(const FakeNode& node, native::Random& random) {
  if (node.kernel != nullptr) {
    std::vector<std::vector<unsigned char>> values = node.arguments;
    std::vector<void*> places;
    for (auto& value : values) places.push_back(value.data());
    run_kernel(*node.kernel, node.grid, node.threads, places.data(), random);
    return "";
  }
  while (true) {
    const auto found = conditions.find(node.handle);
    if (found == conditions.end())
      return "node " + std::to_string(node.id) + " has a condition that nothing set";
    if (found->second == 0) return "";
    if (const std::string wrong = run(*node.body, random); !wrong.empty()) return wrong;
    if (node.kind == kIf) return "";
  }
}

void count(const FakeGraph& graph, std::map<Handle, int>& nodes, std::set<Handle>& handles) {
  handles.insert(graph.handles.begin(), graph.handles.end());
  for (const auto& node : graph.nodes) {
    if (node->kernel != nullptr) continue;
    ++nodes[node->handle];
    count(*node->body, nodes, handles);
  }
}

}  // namespace

std::map<std::string, int64_t>& ran() {
  static std::map<std::string, int64_t> counts;
  return counts;
}

void run_kernel(const Kernel& kernel, const unsigned (&grid)[3], unsigned threads, void* const* arguments,
                native::Random& random) {
  ++ran()[kernel.name];
  if (kernel.entry == nullptr) {
    set_conditions(arguments[0], threads, random.bits());
    return;
  }
  emulation::Values values(kernel.entry->parameters.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const auto parameter = kernel.entry->parameters[i];
    if (parameter == specee::cuda::Parameter::pointer) std::memcpy(&values[i].pointer, arguments[i], 8);
    if (parameter == specee::cuda::Parameter::int64) std::memcpy(&values[i].whole, arguments[i], 8);
    if (parameter == specee::cuda::Parameter::float32) std::memcpy(&values[i].real, arguments[i], 4);
    if (parameter == specee::cuda::Parameter::int32) {
      int32_t whole;
      std::memcpy(&whole, arguments[i], sizeof whole);
      values[i].whole = whole;
    }
  }
  emulation::run_grid({grid[0], grid[1], grid[2]}, threads, random.bits(),
                      [&] { kernel.entry->call(values); });
}

std::string run(const FakeGraph& graph, native::Random& random) {
  if (graph.parent == nullptr) conditions.clear();
  std::set<const FakeNode*> done;
  while (done.size() < graph.nodes.size()) {
    std::vector<const FakeNode*> ready;
    for (const auto& node : graph.nodes) {
      const bool waits = std::any_of(node->after.begin(), node->after.end(),
                                     [&](const FakeNode* before) { return done.count(before) == 0; });
      if (!waits && done.count(node.get()) == 0) ready.push_back(node.get());
    }
    const FakeNode* next = ready[static_cast<size_t>(random.between(0, static_cast<int>(ready.size()) - 1))];
    if (const std::string wrong = run_node(*next, random); !wrong.empty()) return wrong;
    done.insert(next);
  }
  return "";
}

std::unique_ptr<FakeGraph> copy(const FakeGraph& graph) {
  auto made = std::make_unique<FakeGraph>();
  made->id = graph.id;
  made->handles = graph.handles;
  std::map<const FakeNode*, FakeNode*> twin;
  for (const auto& node : graph.nodes) {
    auto next = std::make_unique<FakeNode>();
    next->id = node->id;
    next->kernel = node->kernel;
    std::copy(node->grid, node->grid + 3, next->grid);
    next->threads = node->threads;
    next->arguments = node->arguments;
    next->handle = node->handle;
    next->kind = node->kind;
    for (const FakeNode* before : node->after) next->after.push_back(twin.at(before));
    if (node->body) {
      next->body = copy(*node->body);
      next->body->parent = made.get();
    }
    twin[node.get()] = next.get();
    made->nodes.push_back(std::move(next));
  }
  return made;
}

std::string unsound(const FakeGraph& graph) {
  std::map<Handle, int> nodes;
  std::set<Handle> handles;
  count(graph, nodes, handles);
  for (const Handle handle : handles)
    if (nodes[handle] != 1)
      return "condition " + std::to_string(handle) + " has " + std::to_string(nodes[handle]) + " nodes";
  return "";
}

}  // namespace fake

void cudaGraphSetConditional(unsigned long long handle, unsigned int value) {
  fake::conditions[handle] = value;
}
