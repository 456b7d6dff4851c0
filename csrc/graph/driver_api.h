// What the graphs ask of the CUDA driver, declared here so that nothing of CUDA is needed to build them.
// Names, layouts and numbers are those of cuda.h; a test compares them with it where there is one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace specee::graph {

using Status = int;  // 0 is success
using Context = struct ContextOfDriver*;
using Module = struct ModuleOfDriver*;
using Function = struct FunctionOfDriver*;
using Stream = struct StreamOfDriver*;
using Graph = struct GraphOfDriver*;
using Node = struct NodeOfDriver*;
using Executable = struct ExecutableOfDriver*;
using Handle = uint64_t;   // of a condition
using Address = uint64_t;  // of the device

// CUDA_KERNEL_NODE_PARAMS_v2.
struct KernelNode {
  Function function = nullptr;
  unsigned grid[3] = {}, block[3] = {}, shared_bytes = 0;
  void** arguments = nullptr;
  void** extra = nullptr;
  void* kernel = nullptr;  // in place of a function
  Context context = nullptr;
};

// CUDA_CONDITIONAL_NODE_PARAMS. The driver has `bodies` point to an array of its own.
struct ConditionalNode {
  Handle handle;
  int kind;
  unsigned size;
  Graph* bodies;
  Context context;
};
inline constexpr int kIf = 0, kWhile = 1;

// CUgraphNodeParams, with the one kind of node that is made by it.
struct NodeParameters {
  int kind;
  int reserved[3];
  union {
    int64_t room[29];
    ConditionalNode conditional;
  };
  int64_t reserved_end;
};
inline constexpr int kConditionalNode = 13;

static_assert(sizeof(KernelNode) == 72 && sizeof(ConditionalNode) == 32 && sizeof(NodeParameters) == 256);
static_assert(offsetof(NodeParameters, conditional) == 16);

// X(name here, name in the library, parameters). Every driver of CUDA 11.4 and later has these.
#define SPECEE_DRIVER_FUNCTIONS(X)                                                                        \
  X(init, cuInit, (unsigned flags))                                                                       \
  X(driver_version, cuDriverGetVersion, (int* version))                                                   \
  X(error_name, cuGetErrorName, (Status status, const char** name))                                       \
  X(error_string, cuGetErrorString, (Status status, const char** words))                                  \
  X(current_context, cuCtxGetCurrent, (Context * context))                                                \
  X(set_context, cuCtxSetCurrent, (Context context))                                                      \
  X(module_load, cuModuleLoadData, (Module * module, const void* image))                                  \
  X(module_function, cuModuleGetFunction, (Function * function, Module module, const char* name))         \
  X(module_unload, cuModuleUnload, (Module module))                                                       \
  X(launch_kernel, cuLaunchKernel,                                                                        \
    (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,              \
     unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream stream, void** arguments,          \
     void** extra))                                                                                       \
  X(copy_in, cuMemcpyHtoDAsync_v2, (Address to, const void* from, size_t bytes, Stream stream))           \
  X(copy_out, cuMemcpyDtoHAsync_v2, (void* to, Address from, size_t bytes, Stream stream))                \
  X(stream_synchronize, cuStreamSynchronize, (Stream stream))                                             \
  X(graph_create, cuGraphCreate, (Graph * graph, unsigned flags))                                         \
  X(graph_destroy, cuGraphDestroy, (Graph graph))                                                         \
  X(instantiate, cuGraphInstantiateWithFlags, (Executable * executable, Graph graph, unsigned long long)) \
  X(executable_destroy, cuGraphExecDestroy, (Executable executable))                                      \
  X(graph_upload, cuGraphUpload, (Executable executable, Stream stream))                                  \
  X(graph_launch, cuGraphLaunch, (Executable executable, Stream stream))

// And these came with, or shortly before, conditional nodes. Edge data may be null.
#define SPECEE_CONDITIONAL_FUNCTIONS(X)                                                         \
  X(add_kernel, cuGraphAddKernelNode_v2,                                                        \
    (Node * node, Graph graph, const Node* after, size_t number, const KernelNode* parameters)) \
  X(add_node, cuGraphAddNode_v2,                                                                \
    (Node * node, Graph graph, const Node* after, const void* edges, size_t number,             \
     NodeParameters* parameters))                                                               \
  X(create_handle, cuGraphConditionalHandleCreate,                                              \
    (Handle * handle, Graph graph, Context context, unsigned first_value, unsigned flags))

struct Functions {
#define SPECEE_MEMBER(name, symbol, parameters) Status(*name) parameters = nullptr;
  SPECEE_DRIVER_FUNCTIONS(SPECEE_MEMBER)
  SPECEE_CONDITIONAL_FUNCTIONS(SPECEE_MEMBER)
#undef SPECEE_MEMBER
};

// CUDA's own numbering: 1000 * major + 10 * minor.
inline constexpr int kConditionalVersion = 12040;

}  // namespace specee::graph
