// The compiled kernels by name, for the bindings; needs no header of CUDA.
#pragma once

#include "cuda/parameters.h"

namespace specee::cuda {

struct Kernel {
  std::string name;
  const void* function;
  std::vector<Parameter> parameters;
};

const std::vector<Kernel>& kernels();

// Devices that the driver knows; 0 without a driver, and then `why` says what CUDA says.
int device_count(std::string* why);

// The driver's handle of a kernel on a device, for graphs. Throws std::runtime_error with CUDA's words.
uintptr_t function(const Kernel& kernel, int device);

// Puts the kernel on `stream` of `device`; `arguments` points to one value a parameter. Throws
// std::runtime_error with CUDA's words.
struct Launch {
  unsigned grid[3];
  unsigned threads;
  int device;
  uintptr_t stream;
};
void launch(const Kernel& kernel, const Launch& where, void** arguments);

}  // namespace specee::cuda
