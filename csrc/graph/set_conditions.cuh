// The one kernel that a graph needs of its own: conditions of conditional nodes take the values of int32
// numbers, which any kernel may have written. It is in no other module, because drivers without conditional
// nodes could not load one. condition_ptx.h is this file, compiled (scripts/condition_ptx.py).
#pragma once

#include "specee/condition_batch.h"

#ifdef __CUDACC_RTC__
// The driver's, of CUDA 12.4 and later: no header declares it here, and modules find it when they are loaded.
extern "C" __device__ void cudaGraphSetConditional(unsigned long long handle, unsigned int value);
#endif

namespace specee::graph {

extern "C" __global__ void __launch_bounds__(kConditionBatch) set_conditions(const ConditionBatch batch) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < batch.count) cudaGraphSetConditional(batch.handles[i], *batch.values[i] != 0 ? 1u : 0u);
}

}  // namespace specee::graph
