// CUDA's names on the host, as far as csrc/cuda uses them; matrix instructions after the fragments that the
// PTX manual gives for mma.m16n8k16 and mma.m16n8k32.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "block.h"
#include "specee/numerics.h"

#define SPECEE_EMULATED 1
#define SPECEE_SHARED(Type, name) Type& name = *static_cast<Type*>(emulation::shared_memory(sizeof(Type)))
#define __global__
#define __device__
#define __launch_bounds__(...)

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};

inline emulation::Index &threadIdx = emulation::thread_index, &blockIdx = emulation::block_index,
                        &blockDim = emulation::block_size, &gridDim = emulation::grid_size;

inline void __syncthreads() { emulation::block_barrier(); }
inline float __uint_as_float(unsigned bits) { return specee::bits_float(bits); }
inline unsigned __float_as_uint(float value) { return specee::float_bits(value); }

// Within an ulp of the device's, for |x| that is not far beyond 1.
inline double cospi(double x) { return std::cos(x * 3.141592653589793); }
inline double sinpi(double x) { return std::sin(x * 3.141592653589793); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int step) {
  const unsigned char* all = emulation::exchange(&value, sizeof value);
  std::memcpy(
      &value,
      all + (threadIdx.x % emulation::kLanes ^ static_cast<unsigned>(step)) * emulation::kLargestExchange,
      sizeof value);
  return value;
}

namespace specee::cuda {

// What one lane holds of both factors.
struct Fragments {
  uint32_t a[4], b[2];
};

class WarpFragments {
 public:
  WarpFragments(const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Fragments own;
    std::memcpy(own.a, a, sizeof own.a);
    std::memcpy(own.b, b, sizeof own.b);
    all_ = emulation::exchange(&own, sizeof own);
  }
  uint32_t a(int lane, int i) const { return word(lane, offsetof(Fragments, a), i); }
  uint32_t b(int lane, int i) const { return word(lane, offsetof(Fragments, b), i); }

 private:
  uint32_t word(int lane, size_t from, int i) const {
    uint32_t found;
    std::memcpy(&found,
                all_ + static_cast<size_t>(lane) * emulation::kLargestExchange + from +
                    static_cast<size_t>(i) * sizeof found,
                sizeof found);
    return found;
  }

  const unsigned char* all_;
};

inline float f16_to_float(uint16_t value) { return specee::f16_to_float(value); }
inline uint16_t float_to_f16(float value) { return specee::float_to_f16(value); }

// Element i of the sums is in row lane / 4 (and 8 below), column 2 (lane % 4) (and the next).
inline int sum_row(int lane, int i) { return lane / 4 + i / 2 * 8; }
inline int sum_column(int lane, int i) { return lane % 4 * 2 + i % 2; }

// Hardware adds the products of an instruction in an order and precision of its own; here they are one chain.
inline void multiply_bf16(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const WarpFragments warp(a, b);
  const int lane = static_cast<int>(threadIdx.x) % emulation::kLanes;
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 16; ++k) {
      const int row = sum_row(lane, i), column = sum_column(lane, i), shift = k % 2 * 16;
      const uint32_t left = warp.a(row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2) >> shift;
      const uint32_t right = warp.b(column * 4 + k % 8 / 2, k / 8) >> shift;
      sums[i] = std::fma(bf16_to_float(static_cast<uint16_t>(left)),
                         bf16_to_float(static_cast<uint16_t>(right)), sums[i]);
    }
}

inline void multiply_int8(int (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const WarpFragments warp(a, b);
  const int lane = static_cast<int>(threadIdx.x) % emulation::kLanes;
  for (int i = 0; i < 4; ++i) {
    sums[i] = 0;
    for (int k = 0; k < 32; ++k) {
      const int row = sum_row(lane, i), column = sum_column(lane, i), shift = k % 4 * 8;
      const uint32_t left = warp.a(row % 8 * 4 + k % 16 / 4, row / 8 + k / 16 * 2) >> shift;
      const uint32_t right = warp.b(column * 4 + k % 16 / 4, k / 16) >> shift;
      sums[i] += static_cast<int8_t>(left) * static_cast<int8_t>(right);
    }
  }
}

}  // namespace specee::cuda
