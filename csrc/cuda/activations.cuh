// Rows as products take them: rounded to bf16, or int8 in blocks of 32, once for all products that want them.
#pragma once

#include "numbers.cuh"

namespace specee::cuda {

inline constexpr int kRoundThreads = 256;
inline constexpr int kQuantiseThreads = 256;  // a warp a block of 32

// narrow[i] = bf16(x[i]), i < count.
extern "C" __global__ void __launch_bounds__(kRoundThreads)
    round_rows(const float* x, uint16_t* narrow, int count) {
  const int i = static_cast<int>(blockIdx.x * kRoundThreads + threadIdx.x);
  if (i < count) narrow[i] = static_cast<uint16_t>(float_to_bf16(x[i]));
}

// A warp has a block of 32, a lane a number of it: q[block] = round(value / scale), scale = largest magnitude
// / 127; sums: scale * sum of the block's q. A NaN or an infinity ends up in scale and sum, and the block's
// integers are zero (docs/numerics.md).
__device__ inline void quantise_block(float value, int64_t block, int8_t* q, float* scales, float* sums) {
  const int lane = static_cast<int>(threadIdx.x % kLanes);
  // As integers, magnitudes are in order, infinity beyond them and NaN beyond that.
  uint32_t largest = __float_as_uint(value) & 0x7fffffffu;
  for (int step = kLanes / 2; step > 0; step /= 2) {
    const uint32_t other = __shfl_xor_sync(kAllLanes, largest, step);
    largest = other > largest ? other : largest;
  }
  const float magnitude = __uint_as_float(largest);
  const bool zero = magnitude < 1e-30f, finite = largest < 0x7f800000u;
  const float scale = zero ? 0.0f : magnitude * (1.0f / 127.0f);
  const int rounded = zero || !finite ? 0 : static_cast<int>(rintf(value * (1.0f / scale)));
  int sum = rounded;
  for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  q[block * kLanes + lane] = static_cast<int8_t>(rounded);
  if (lane == 0) {
    scales[block] = scale;
    sums[block] = scale * static_cast<float>(sum);
  }
}

// The block of the warp, of all blocks of all rows.
__device__ inline int warp_block() {
  return static_cast<int>((blockIdx.x * kQuantiseThreads + threadIdx.x) / kLanes);
}

// x (rows x each blocks), blocks of all rows; those of a row of the output are `stride` blocks behind those
// of the row before.
extern "C" __global__ void __launch_bounds__(kQuantiseThreads)
    quantise_rows(const float* x, int8_t* q, float* scales, float* sums, int blocks, int each, int stride) {
  const int block = warp_block();
  if (block >= blocks) return;  // whole warps
  const int64_t at = static_cast<int64_t>(block / each) * stride + block % each;
  quantise_block(x[static_cast<int64_t>(block) * kLanes + threadIdx.x % kLanes], at, q, scales, sums);
}

}  // namespace specee::cuda
