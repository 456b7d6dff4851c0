// What else happens to rows of the residual stream: a bias is added, a copy is kept.
#pragma once

#include "platform.cuh"

namespace specee::cuda {

inline constexpr int kRowThreads = 256;

__device__ inline int row_number() { return static_cast<int>(blockIdx.x * kRowThreads + threadIdx.x); }

// x[row][i] += bias[i]; x (rows x width), count = rows * width.
extern "C" __global__ void __launch_bounds__(kRowThreads)
    add_bias(float* x, const float* bias, int count, int width) {
  const int i = row_number();
  if (i < count) x[i] += bias[i % width];
}

// out[i] = x[i], i < count.
extern "C" __global__ void __launch_bounds__(kRowThreads) copy_rows(const float* x, float* out, int count) {
  const int i = row_number();
  if (i < count) out[i] = x[i];
}

}  // namespace specee::cuda
