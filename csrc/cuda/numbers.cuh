// Number formats and sums in one fixed order. Nothing is contracted (kernels are compiled without it); a
// fused multiply-add is written out.
#pragma once

#include "platform.cuh"

namespace specee::cuda {

inline constexpr uint32_t kAllLanes = 0xffffffffu;
inline constexpr int kLanes = 32;

// NVRTC knows neither INFINITY nor NAN.
__device__ inline float infinity() { return __uint_as_float(0x7f800000u); }
__device__ inline float not_a_number() { return __uint_as_float(0x7fc00000u); }

// To nearest, ties to even; a NaN stays one.
__device__ inline uint32_t float_to_bf16(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

struct Bf16 {
  static __device__ float widen(uint32_t bits) { return __uint_as_float(bits << 16); }
  static __device__ uint16_t narrow(float value) { return static_cast<uint16_t>(float_to_bf16(value)); }
};
struct F16 {
  static __device__ float widen(uint32_t bits) { return f16_to_float(static_cast<uint16_t>(bits)); }
  static __device__ uint16_t narrow(float value) { return float_to_f16(value); }
};

// Two 16-bit numbers, the first in the low half, as fp32.
template <class Format>
__device__ void widen_pair(uint32_t pair, float* wide) {
  wide[0] = Format::widen(pair & 0xffffu);
  wide[1] = Format::widen(pair >> 16);
}

template <class Format>
__device__ void widen_chunk(const uint4& chunk, float (&wide)[8]) {
  widen_pair<Format>(chunk.x, wide);
  widen_pair<Format>(chunk.y, wide + 2);
  widen_pair<Format>(chunk.z, wide + 4);
  widen_pair<Format>(chunk.w, wide + 6);
}

// A tree over `width` neighbouring lanes, a power of two; every lane has the sum.
__device__ inline float lanes_sum(float value, int width = kLanes) {
  for (int step = width / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

__device__ inline float lanes_max(float value) {
  for (int step = kLanes / 2; step > 0; step /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

// A tree in each warp, then the warps in order; every thread has the sum. `room`: one value a warp.
__device__ inline float block_sum(float value, float* room) {
  const float own = lanes_sum(value);
  if (threadIdx.x % kLanes == 0) room[threadIdx.x / kLanes] = own;
  __syncthreads();
  float sum = 0.0f;
  for (unsigned warp = 0; warp < blockDim.x / kLanes; ++warp) sum += room[warp];
  __syncthreads();
  return sum;
}

}  // namespace specee::cuda
