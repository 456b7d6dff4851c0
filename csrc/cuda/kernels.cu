// The kernels as nvcc compiles them, and how they are launched.
#include <stdexcept>

#include "cuda/launch.h"
#include "kernels.cuh"

namespace specee::cuda {
namespace {

void check(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess) throw std::runtime_error(what + ": " + cudaGetErrorString(status));
}

// Makes a device current, and the earlier one again.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) : device_(device) {
    check(cudaGetDevice(&before_), "no current CUDA device");
    if (before_ != device_) check(cudaSetDevice(device_), "CUDA device " + std::to_string(device_));
  }
  ~CurrentDevice() {
    if (before_ != device_) cudaSetDevice(before_);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int device_, before_ = 0;
};

}  // namespace

const std::vector<Kernel>& kernels() {
#define SPECEE_ENTRY(name) {#name, reinterpret_cast<const void*>(&name), parameters_of(&name)},
  static const std::vector<Kernel> all = {SPECEE_CUDA_KERNELS(SPECEE_ENTRY)};
#undef SPECEE_ENTRY
  return all;
}

int device_count(std::string* why) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) return count;
  *why = cudaGetErrorString(status);
  cudaGetLastError();  // or the next launch would report it
  return 0;
}

uintptr_t function(const Kernel& kernel, int device) {
  const CurrentDevice current(device);
  cudaFunction_t found = nullptr;
  check(cudaGetFuncBySymbol(&found, kernel.function), "looking up " + kernel.name);
  return reinterpret_cast<uintptr_t>(found);
}

void launch(const Kernel& kernel, const Launch& where, void** arguments) {
  const CurrentDevice current(where.device);
  const dim3 grid(where.grid[0], where.grid[1], where.grid[2]);
  check(cudaLaunchKernel(kernel.function, grid, dim3(where.threads), arguments, 0,
                         reinterpret_cast<cudaStream_t>(where.stream)),
        "launching " + kernel.name);
}

}  // namespace specee::cuda
