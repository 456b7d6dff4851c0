// A library that says it is the CUDA driver: it writes down every call, keeps account of what is alive, runs
// graphs on the host, and lets any call fail.
//
//   fake_reset(version, has_context)   forget everything, with CUDA's number for a version
//   fake_fail(n, status)               the n-th call from now on (1 is the next) returns that status
//   fake_calls()                       calls since the reset
//   fake_ran(kernel)                   how often it has run since then, in graphs or without
//   fake_log(), fake_live()            calls, a line each; what is alive, by kind
//   fake_seed(seed)                    of the order that nodes run in
#include <cstring>

#include "kernels.h"
#include "state.h"

using namespace fake;

FAKE void fake_reset(int version, int has_context) {
  State& now = state();
  now.modules.clear(), now.graphs.clear(), now.bodies.clear(), now.executables.clear();
  now.version = version;
  current() = has_context != 0 ? context() : nullptr;
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
FAKE Status cuCtxGetCurrent(Context* found) {
  *found = current();
  return enter("cuCtxGetCurrent");
}
FAKE Status cuCtxSetCurrent(Context wanted) {
  if (const Status status = enter("cuCtxSetCurrent", wanted != nullptr)) return status;
  if (wanted != nullptr && wanted != context()) return misuse("no such context");
  current() = wanted;
  return 0;
}

FAKE Status cuModuleLoadData(Module* module, const void* image) {
  if (const Status status = enter("cuModuleLoadData", std::strlen(static_cast<const char*>(image))))
    return status;
  if (const Status status = needs_context()) return status;
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
  if (needs_context() != 0) return misuse("a module is unloaded in no context");
  return state().modules.erase(as<FakeModule*>(module)) == 1 ? status : misuse("no such module");
}

FAKE Status cuLaunchKernel(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                           unsigned block_x, unsigned, unsigned, unsigned, Stream, void** arguments, void**) {
  const Kernel* kernel = kernel_of(function);
  if (const Status status = enter("cuLaunchKernel", kernel != nullptr ? kernel->name : "?")) return status;
  if (const Status status = needs_context()) return status;
  if (kernel == nullptr) return misuse("no such kernel");
  run_kernel(*kernel, {grid_x, grid_y, grid_z}, block_x, arguments, state().random);
  return 0;
}
FAKE Status cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream) {
  if (const Status status = enter("cuMemcpyHtoDAsync_v2", bytes)) return status;
  if (const Status status = needs_context()) return status;
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return 0;
}
FAKE Status cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Stream) {
  if (const Status status = enter("cuMemcpyDtoHAsync_v2", bytes)) return status;
  if (const Status status = needs_context()) return status;
  std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return 0;
}
FAKE Status cuStreamSynchronize(Stream) { return enter("cuStreamSynchronize"); }
