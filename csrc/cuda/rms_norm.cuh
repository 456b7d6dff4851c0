// RMSNorm (Zhang and Sennrich, 2019) of the rows that enter a product, rounded or quantised in the same go:
// y = x * weight / sqrt(mean(x^2) + eps). Squares are added by threads, each its own in order, then by
// block_sum: a row is one block's, whatever rows there are. A block's row is which[block], the block's own
// number where that is null. Rows of the output are `stride` numbers apart.
#pragma once

#include "activations.cuh"

namespace specee::cuda {

inline constexpr int kNormThreads = 256;

struct NormShared {
  float room[kNormThreads / kLanes];
};

// The row of x (any x hidden) that a block has.
__device__ inline const float* normed_row(const float* x, const int* which, int hidden) {
  const int64_t row = which != nullptr ? which[blockIdx.x] : static_cast<int>(blockIdx.x);
  return x + row * hidden;
}

// What every number of the row is multiplied by, to all threads.
__device__ inline float norm_scale(const float* __restrict__ x, int hidden, float eps, NormShared& shared) {
  float squares = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < hidden; i += kNormThreads)
    squares = fmaf(x[i], x[i], squares);
  return 1.0f / sqrtf(block_sum(squares, shared.room) / static_cast<float>(hidden) + eps);
}

// Block (row). weight (hidden); out (rows x stride) bf16.
extern "C" __global__ void __launch_bounds__(kNormThreads)
    norm_rows_bf16(const float* x, const int* which, const float* weight, uint16_t* out, int hidden,
                   int stride, float eps) {
  SPECEE_SHARED(NormShared, shared);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * stride;
  const float* row = normed_row(x, which, hidden);
  const float scale = norm_scale(row, hidden, eps, shared);
  for (int i = static_cast<int>(threadIdx.x); i < hidden; i += kNormThreads)
    out[first + i] = Bf16::narrow(row[i] * scale * weight[i]);
}

// The same in blocks of 32, of which a warp has every eighth. q (rows x stride); scales, sums (rows x stride
// / 32).
extern "C" __global__ void __launch_bounds__(kNormThreads)
    norm_rows_int8(const float* x, const int* which, const float* weight, int8_t* q, float* scales,
                   float* sums, int hidden, int stride, float eps) {
  SPECEE_SHARED(NormShared, shared);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * stride;
  const float* row = normed_row(x, which, hidden);
  const float scale = norm_scale(row, hidden, eps, shared);
  for (int i = static_cast<int>(threadIdx.x); i < hidden; i += kNormThreads)  // whole warps: 32 divides both
    quantise_block(row[i] * scale * weight[i], (first + i) / kLanes, q, scales, sums);
}

}  // namespace specee::cuda
