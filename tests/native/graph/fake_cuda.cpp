// A library that says it is the CUDA driver: it writes down every call, keeps account of what is alive, runs
// graphs on the host, and lets any call fail.
//
//   fake_reset(version, has_context)   forget everything, with CUDA's number for a version
//   fake_fail(n, status)               the n-th call from now on (1 is the next) returns that status
//   fake_calls()                       calls since the reset
//   fake_ran(kernel)                   how often it has run since then, in graphs or without
//   fake_log(), fake_live()            calls, a line each; what is alive, by kind
//   fake_seed(seed)                    of the order that nodes run in
#include <algorithm>
#include <cstring>
#include <sstream>

#include "kernels.h"
#include "objects.h"

#define FAKE extern "C" __attribute__((visibility("default")))

namespace fake {
namespace {

constexpr Status kInvalidValue = 1, kNoContext = 201, kNotFound = 500;

struct State {
  int version = 12040;
  bool has_context = true;
  int64_t calls = 0, fail_at = 0;
  Status failure = 0;
  int ids = 0;
  std::ostringstream log;
  std::map<FakeModule*, std::unique_ptr<FakeModule>> modules;
  std::map<FakeGraph*, std::unique_ptr<FakeGraph>> graphs;  // bodies are their parents'
  std::set<FakeGraph*> bodies;
  std::map<FakeExecutable*, std::unique_ptr<FakeExecutable>> executables;
  native::Random random{1};
  std::string text;  // what was last asked for
};
State& state() {
  static State one;
  return one;
}

// Counts a call and writes it down; its status if it is to fail.
template <class... Parts>
Status enter(const char* name, const Parts&... parts) {
  State& now = state();
  now.log << name;
  ((now.log << ' ' << parts), ...);
  const bool fails = ++now.calls == now.fail_at;
  now.log << (fails ? " FAILS\n" : "\n");
  return fails ? now.failure : 0;
}

Status misuse(const std::string& why) {
  state().log << "misuse: " << why << '\n';
  return kInvalidValue;
}

template <class To, class From>
To as(From* pointer) {
  return reinterpret_cast<To>(pointer);
}

Context context() { return as<Context>(&state()); }

FakeGraph* graph_of(Graph graph) {
  auto* found = as<FakeGraph*>(graph);
  return state().graphs.count(found) != 0 || state().bodies.count(found) != 0 ? found : nullptr;
}

int id_of(Graph graph) {
  const FakeGraph* found = graph_of(graph);
  return found != nullptr ? found->id : -1;
}

const Kernel* kernel_of(Function function) {
  for (const auto& [module, owner] : state().modules)
    for (const auto& [name, kernel] : module->kernels)
      if (as<Function>(kernel.get()) == function) return kernel.get();
  return nullptr;
}

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

FAKE void fake_reset(int version, int has_context) {
  State& now = state();
  now.modules.clear(), now.graphs.clear(), now.bodies.clear(), now.executables.clear();
  now.version = version;
  now.has_context = has_context != 0;
  now.calls = now.fail_at = 0;
  now.ids = 0;
  now.log.str("");
  ran().clear();
}
FAKE void fake_fail(int64_t calls, Status status) {
  state().fail_at = calls > 0 ? state().calls + calls : 0;
  state().failure = status;
}
FAKE int64_t fake_ran(const char* kernel) {
  const auto found = ran().find(kernel);
  return found != ran().end() ? found->second : 0;
}
FAKE int64_t fake_calls() { return state().calls; }
FAKE void fake_seed(uint64_t seed) { state().random = native::Random(seed); }
FAKE const char* fake_log() {
  state().text = state().log.str();
  return state().text.c_str();
}
FAKE const char* fake_live() {
  const State& now = state();
  state().text = std::to_string(now.modules.size()) + " modules, " + std::to_string(now.graphs.size()) +
                 " graphs, " + std::to_string(now.bodies.size()) + " bodies, " +
                 std::to_string(now.executables.size()) + " executables";
  return state().text.c_str();
}

FAKE Status cuGetErrorName(Status status, const char** name) {
  *name = status == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OF_FAKE";
  return 0;
}
FAKE Status cuGetErrorString(Status status, const char** words) {
  *words = status == 2 ? "out of memory" : "the fake was told to";
  return 0;
}
FAKE Status cuInit(unsigned) { return enter("cuInit"); }
FAKE Status cuDriverGetVersion(int* version) {
  *version = state().version;
  return enter("cuDriverGetVersion");
}
FAKE Status cuCtxGetCurrent(Context* current) {
  *current = state().has_context ? context() : nullptr;
  return enter("cuCtxGetCurrent");
}

FAKE Status cuModuleLoadData(Module* module, const void* image) {
  if (const Status status = enter("cuModuleLoadData", std::strlen(static_cast<const char*>(image))))
    return status;
  if (!state().has_context) return kNoContext;
  auto made = std::make_unique<FakeModule>();
  *module = as<Module>(made.get());
  state().modules[made.get()] = std::move(made);
  return 0;
}
FAKE Status cuModuleGetFunction(Function* function, Module module, const char* name) {
  if (const Status status = enter("cuModuleGetFunction", name)) return status;
  const auto owner = state().modules.find(as<FakeModule*>(module));
  if (owner == state().modules.end()) return misuse("no such module");
  auto& kernel = owner->second->kernels[name];
  if (!kernel) {
    const auto found = kernels().find(name);
    const bool own = std::strcmp(name, "set_conditions") == 0;
    if (!own && found == kernels().end()) return kNotFound;
    kernel = std::make_unique<Kernel>(Kernel{name, own ? nullptr : &found->second});
  }
  *function = as<Function>(kernel.get());
  return 0;
}
FAKE Status cuModuleUnload(Module module) {
  const Status status = enter("cuModuleUnload");
  return state().modules.erase(as<FakeModule*>(module)) == 1 ? status : misuse("no such module");
}

FAKE Status cuLaunchKernel(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                           unsigned block_x, unsigned, unsigned, unsigned, Stream, void** arguments, void**) {
  const Kernel* kernel = kernel_of(function);
  if (const Status status = enter("cuLaunchKernel", kernel != nullptr ? kernel->name : "?")) return status;
  if (kernel == nullptr) return misuse("no such kernel");
  run_kernel(*kernel, {grid_x, grid_y, grid_z}, block_x, arguments, state().random);
  return 0;
}
FAKE Status cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream) {
  if (const Status status = enter("cuMemcpyHtoDAsync_v2", bytes)) return status;
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return 0;
}
FAKE Status cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Stream) {
  if (const Status status = enter("cuMemcpyDtoHAsync_v2", bytes)) return status;
  std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return 0;
}
FAKE Status cuStreamSynchronize(Stream) { return enter("cuStreamSynchronize"); }

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
