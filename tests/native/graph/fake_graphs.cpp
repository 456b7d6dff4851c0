// The fake driver's graphs.
#include <algorithm>

#include "state.h"

namespace fake {
namespace {

std::string hexadecimal(const std::vector<unsigned char>& bytes) {
  std::string text;
  for (const unsigned char byte : bytes) {
    text += "0123456789abcdef"[byte / 16];
    text += "0123456789abcdef"[byte % 16];
  }
  return text;
}

std::string ids(const Node* nodes, size_t number) {
  std::string text = "after=";
  for (size_t i = 0; i < number; ++i)
    text += (i > 0 ? "," : "") + std::to_string(as<FakeNode*>(nodes[i])->id);
  return text;
}

void forget_bodies(const FakeGraph& graph) {
  for (const auto& node : graph.nodes) {
    if (!node->body) continue;
    state().bodies.erase(node->body.get());
    forget_bodies(*node->body);
  }
}

std::vector<std::vector<unsigned char>> bytes_at(const Kernel& kernel, void* const* places) {
  const auto take = [](void* place, size_t bytes) {
    const auto* from = static_cast<unsigned char*>(place);
    return std::vector<unsigned char>(from, from + bytes);
  };
  if (kernel.entry == nullptr) return {take(places[0], 1032)};
  std::vector<std::vector<unsigned char>> values;
  for (const auto parameter : kernel.entry->parameters) {
    using specee::cuda::Parameter;
    const bool four = parameter == Parameter::int32 || parameter == Parameter::float32;
    values.push_back(take(places[values.size()], four ? 4 : 8));
  }
  return values;
}

// Adds a node to a graph, after others of the same one.
Status append(FakeGraph* graph, std::unique_ptr<FakeNode> node, const Node* after, size_t number,
              Node* made) {
  for (size_t i = 0; i < number; ++i) {
    auto* before = as<FakeNode*>(after[i]);
    const bool there = std::any_of(graph->nodes.begin(), graph->nodes.end(),
                                   [&](const auto& one) { return one.get() == before; });
    if (!there) return misuse("a node waits for one of another graph");
    node->after.push_back(before);
  }
  *made = as<Node>(node.get());
  graph->nodes.push_back(std::move(node));
  return 0;
}

}  // namespace
}  // namespace fake

using namespace fake;

FAKE Status cuGraphCreate(Graph* graph, unsigned) {
  if (const Status status = enter("cuGraphCreate", state().ids)) return status;
  auto made = std::make_unique<FakeGraph>();
  made->id = state().ids++;
  *graph = as<Graph>(made.get());
  state().graphs[made.get()] = std::move(made);
  return 0;
}
FAKE Status cuGraphDestroy(Graph graph) {
  const Status status = enter("cuGraphDestroy", id_of(graph));
  const auto found = state().graphs.find(as<FakeGraph*>(graph));
  if (found == state().graphs.end()) return misuse("no such graph, or the body of another");
  forget_bodies(*found->second);
  state().graphs.erase(found);
  return status;
}
FAKE Status cuGraphInstantiateWithFlags(Executable* executable, Graph graph, unsigned long long) {
  if (const Status status = enter("cuGraphInstantiateWithFlags", id_of(graph))) return status;
  const auto found = state().graphs.find(as<FakeGraph*>(graph));
  if (found == state().graphs.end()) return misuse("no such graph, or the body of another");
  if (const std::string why = unsound(*found->first); !why.empty()) return misuse(why);
  auto made = std::make_unique<FakeExecutable>(FakeExecutable{copy(*found->first)});
  *executable = as<Executable>(made.get());
  state().executables[made.get()] = std::move(made);
  return 0;
}
FAKE Status cuGraphExecDestroy(Executable executable) {
  const Status status = enter("cuGraphExecDestroy");
  return state().executables.erase(as<FakeExecutable*>(executable)) == 1 ? status
                                                                         : misuse("no such executable");
}
FAKE Status cuGraphUpload(Executable executable, Stream) {
  if (const Status status = enter("cuGraphUpload")) return status;
  return state().executables.count(as<FakeExecutable*>(executable)) == 1 ? 0 : misuse("no such executable");
}
FAKE Status cuGraphLaunch(Executable executable, Stream stream) {
  if (const Status status = enter("cuGraphLaunch", reinterpret_cast<uintptr_t>(stream))) return status;
  if (const Status status = needs_context()) return status;
  const auto found = state().executables.find(as<FakeExecutable*>(executable));
  if (found == state().executables.end()) return misuse("no such executable");
  const std::string wrong = run(*found->second->graph, state().random);
  return wrong.empty() ? 0 : misuse(wrong);
}

FAKE Status cuGraphAddKernelNode_v2(Node* node, Graph graph, const Node* after, size_t number,
                                    const KernelNode* parameters) {
  auto made = std::make_unique<FakeNode>();
  made->id = state().ids++;
  made->kernel = kernel_of(parameters->function);
  std::copy(parameters->grid, parameters->grid + 3, made->grid);
  made->threads = parameters->block[0];
  std::string values;
  if (made->kernel != nullptr) {
    made->arguments = bytes_at(*made->kernel, parameters->arguments);
    for (const auto& value : made->arguments) values += (values.empty() ? "" : "|") + hexadecimal(value);
  }
  const auto* grid = made->grid;
  const Status status = enter("cuGraphAddKernelNode_v2", id_of(graph), made->id, ids(after, number),
                              made->kernel != nullptr ? made->kernel->name : "?", grid[0], grid[1], grid[2],
                              made->threads, parameters->block[1], parameters->block[2],
                              parameters->shared_bytes, values.empty() ? "-" : values);
  if (status != 0) return status;
  if (made->kernel == nullptr) return misuse("no such kernel");
  FakeGraph* owner = graph_of(graph);
  if (owner == nullptr) return misuse("no such graph");
  return append(owner, std::move(made), after, number, node);
}

FAKE Status cuGraphConditionalHandleCreate(Handle* handle, Graph graph, Context owner, unsigned first_value,
                                           unsigned flags) {
  const Handle made = 1000 + static_cast<Handle>(state().ids++);
  if (const Status status = enter("cuGraphConditionalHandleCreate", id_of(graph), made, first_value, flags))
    return status;
  if (owner != context()) return misuse("a condition in no context");
  FakeGraph* found = graph_of(graph);
  if (found == nullptr) return misuse("no such graph");
  found->handles.insert(made);
  *handle = made;
  return 0;
}

FAKE Status cuGraphAddNode_v2(Node* node, Graph graph, const Node* after, const void* edges, size_t number,
                              NodeParameters* parameters) {
  ConditionalNode& conditional = parameters->conditional;
  auto made = std::make_unique<FakeNode>();
  made->id = state().ids++;
  const int body_id = state().ids++;
  if (const Status status = enter("cuGraphAddNode_v2", id_of(graph), made->id, ids(after, number),
                                  parameters->kind, conditional.handle, conditional.kind, body_id))
    return status;
  FakeGraph* owner = graph_of(graph);
  if (owner == nullptr) return misuse("no such graph");
  if (parameters->kind != kConditionalNode || edges != nullptr || conditional.size != 1 ||
      conditional.context != context() || (conditional.kind != kIf && conditional.kind != kWhile))
    return misuse("no conditional node that the fake knows");
  bool known = false;
  for (const FakeGraph* above = owner; above != nullptr; above = above->parent)
    known = known || above->handles.count(conditional.handle) != 0;
  if (!known) return misuse("a condition that belongs to another graph");
  made->handle = conditional.handle;
  made->kind = conditional.kind;
  made->body = std::make_unique<FakeGraph>();
  made->body->id = body_id;
  made->body->parent = owner;
  made->body_handle = as<Graph>(made->body.get());
  FakeGraph* body = made->body.get();
  conditional.bodies = &made->body_handle;
  const Status status = append(owner, std::move(made), after, number, node);
  if (status == 0) state().bodies.insert(body);
  return status;
}
