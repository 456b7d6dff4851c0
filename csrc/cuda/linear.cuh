// Row-linear: y (rows x outputs) = x W^T, or += it, for 1 to 64 rows, on the matrix units. A block has 16
// outputs and all rows; warp w of 8 takes the units of 32 k with number w, w + 8, ... in order, and the
// warps' sums are added in order. None of it depends on the number of rows, and a matrix instruction treats
// its columns, which are rows of x, alike; so a row's bits do not depend on its company.
#pragma once

#include "numbers.cuh"

namespace specee::cuda {

inline constexpr int kLinearThreads = kLinearWarps * kLanes;

// Units whose weights a warp asks for at once, as registers allow; their order is the same.
template <int kTiles>
inline constexpr int kUnitsAhead = kTiles <= 2   ? 4
                                   : kTiles == 4 ? 2
                                                 : 1;

// Sums of the warps, before they are added: [warp][row][output].
template <int kTiles>
struct LinearShared {
  float sums[kLinearWarps][kTiles * kTileRows][kTileOutputs];
};

// A thread's place in the fragments of a matrix instruction: `group` is an output (and group + 8 another) of
// the weights, and a row of x; `member` picks k, and of the sums rows 2 member and 2 member + 1.
struct Fragment {
  int warp, lane, group, member;
};

__device__ inline Fragment fragment() {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kLanes;
  return {thread / kLanes, lane, lane / 4, lane % 4};
}

template <int kTiles>
__device__ void finish_linear(const float (&sums)[kTiles][4], float* y, int outputs, int rows, int add) {
  SPECEE_SHARED(LinearShared<kTiles>, shared);
  const Fragment at = fragment();
  for (int tile = 0; tile < kTiles; ++tile)
    for (int i = 0; i < 4; ++i)
      shared.sums[at.warp][tile * kTileRows + 2 * at.member + i % 2][at.group + i / 2 * 8] = sums[tile][i];
  __syncthreads();
  const int output =
      static_cast<int>(blockIdx.x) * kTileOutputs + static_cast<int>(threadIdx.x) % kTileOutputs;
  if (output >= outputs) return;
  for (int row = static_cast<int>(threadIdx.x) / kTileOutputs; row < rows;
       row += kLinearThreads / kTileOutputs) {
    float sum = 0.0f;
    for (int warp = 0; warp < kLinearWarps; ++warp) sum += shared.sums[warp][row][output % kTileOutputs];
    float& out = y[static_cast<int64_t>(row) * outputs + output];
    out = add != 0 ? out + sum : sum;
  }
}

// Sixteen bytes, or zeros where there are none.
__device__ inline uint4 load_chunk(const uint16_t* from, bool exists) {
  const uint4 nothing = {0, 0, 0, 0};
  return exists ? *reinterpret_cast<const uint4*>(from) : nothing;
}

// The two rows of weights that a thread has, outputs `group` and `group + 8` of the block, where they exist.
struct WeightRows {
  const uint16_t *low, *high;
  bool has_low, has_high;
};

// sums += x (rows x k) times weights (k of each of 16 outputs), both bf16. A lane reads eight k at once; the
// instruction's k are a permutation of the unit's, the same one for weights and activations.
template <int kTiles>
__device__ void multiply_rows(const WeightRows& weights, const uint16_t* __restrict__ x, int k, int rows,
                              float (&sums)[kTiles][4]) {
  const Fragment at = fragment();
  constexpr int kAhead = kUnitsAhead<kTiles>, kStride = kLinearWarps * kTileUnit;
  const uint16_t* low_row = weights.low + at.member * 8;
  const uint16_t* high_row = weights.high + at.member * 8;
  for (int first = at.warp * kTileUnit; first < k; first += kAhead * kStride) {
    uint4 low[kAhead], high[kAhead];
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int begin = first + ahead * kStride;
      low[ahead] = load_chunk(low_row + begin, begin < k && weights.has_low);
      high[ahead] = load_chunk(high_row + begin, begin < k && weights.has_high);
    }
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int begin = first + ahead * kStride;
      if (begin >= k) break;
      const uint4 l = low[ahead], h = high[ahead];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const int row = tile * kTileRows + at.group;
        const uint4 in = load_chunk(x + static_cast<int64_t>(row) * k + begin + at.member * 8, row < rows);
        multiply_bf16(sums[tile], {l.x, h.x, l.y, h.y}, {in.x, in.y});
        multiply_bf16(sums[tile], {l.z, h.z, l.w, h.w}, {in.z, in.w});
      }
    }
  }
}

// w (outputs x k) and x (rows x k) are bf16 as checkpoints have them.
template <int kTiles>
__device__ void linear_bf16(const uint16_t* __restrict__ w, const uint16_t* __restrict__ x, float* y,
                            int outputs, int k, int rows, int add) {
  const int output = static_cast<int>(blockIdx.x) * kTileOutputs + fragment().group;
  const uint16_t* row = w + static_cast<int64_t>(output) * k;
  const WeightRows weights = {row, row + static_cast<int64_t>(8) * k, output < outputs, output + 8 < outputs};
  float sums[kTiles][4] = {};
  multiply_rows<kTiles>(weights, x, k, rows, sums);
  finish_linear<kTiles>(sums, y, outputs, rows, add);
}

// One unit of packed weights as a lane holds it; scales and minima of outputs `group` and `group + 8`.
struct Unit {
  uint32_t weights[4];
  float scales[2], minima[2];
};

struct Int8Weights {
  static constexpr bool kHasMinima = false;
  static __device__ Unit load(const uint8_t* __restrict__ packed, const uint16_t* __restrict__ scales,
                              int64_t unit, const Fragment& at) {
    const uint4 in = *reinterpret_cast<const uint4*>(packed + unit * kInt8UnitBytes + at.lane * 16);
    const uint16_t* scale = scales + unit * kTileOutputs + at.group;
    return {{in.x, in.y, in.z, in.w}, {f16_to_float(scale[0]), f16_to_float(scale[8])}, {}};
  }
};

// weight = scale * q + minimum, q from 0 to 15.
struct Int4Weights {
  static constexpr bool kHasMinima = true;
  static __device__ Unit load(const uint8_t* __restrict__ packed, const uint16_t* __restrict__ scales,
                              int64_t unit, const Fragment& at) {
    const uint2 in = *reinterpret_cast<const uint2*>(packed + unit * kInt4UnitBytes + at.lane * 8);
    const uint16_t* scale = scales + unit * 2 * kTileOutputs + at.group;
    const uint32_t mask = 0x0f0f0f0fu;
    return {{in.x & mask, (in.x >> 4) & mask, in.y & mask, (in.y >> 4) & mask},
            {f16_to_float(scale[0]), f16_to_float(scale[8])},
            {f16_to_float(scale[16]), f16_to_float(scale[24])}};
  }
};

// Rows quantised by quantise_rows: q (rows x k), scales and sums (rows x k / 32).
struct QuantisedRows {
  const int8_t* __restrict__ q;
  const float* __restrict__ scales;
  const float* __restrict__ sums;
};

// One unit of weights times all rows: exact integers, then fused multiply-adds with the scales.
template <class Weights, int kTiles>
__device__ void add_unit(const Unit& weights, const QuantisedRows& x, int unit, int units, int rows,
                         const Fragment& at, float (&sums)[kTiles][4]) {
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const int row = tile * kTileRows + at.group;
    uint32_t in[2] = {0, 0};
    if (row < rows) {
      const int8_t* from = x.q + (static_cast<int64_t>(row) * units + unit) * kTileUnit + at.member * 4;
      in[0] = *reinterpret_cast<const uint32_t*>(from);
      in[1] = *reinterpret_cast<const uint32_t*>(from + 16);
    }
    int products[4];
    multiply_int8(products, weights.weights, in);
    for (int side = 0; side < 2; ++side) {
      const int summed = tile * kTileRows + 2 * at.member + side;
      if (summed >= rows) continue;
      const int64_t record = static_cast<int64_t>(summed) * units + unit;
      const float scale = x.scales[record];
      for (int half = 0; half < 2; ++half) {
        float& sum = sums[tile][side + 2 * half];
        sum = fmaf(weights.scales[half] * scale, static_cast<float>(products[side + 2 * half]), sum);
        if (Weights::kHasMinima) sum = fmaf(weights.minima[half], x.sums[record], sum);
      }
    }
  }
}

// Weights are packed as in specee/tiles.h.
template <class Weights, int kTiles>
__device__ void linear_packed(const uint8_t* __restrict__ packed, const uint16_t* __restrict__ scales,
                              const QuantisedRows& x, float* y, int outputs, int k, int rows, int add) {
  constexpr int kAhead = kUnitsAhead<kTiles>;
  const Fragment at = fragment();
  const int units = k / kTileUnit;
  const int64_t first_unit = static_cast<int64_t>(blockIdx.x) * units;
  float sums[kTiles][4] = {};
  for (int first = at.warp; first < units; first += kAhead * kLinearWarps) {
    Unit weights[kAhead];
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int unit = first + ahead * kLinearWarps;
      // Beyond the end the last unit is read again, and not used.
      weights[ahead] = Weights::load(packed, scales, first_unit + (unit < units ? unit : units - 1), at);
    }
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int unit = first + ahead * kLinearWarps;
      if (unit < units) add_unit<Weights, kTiles>(weights[ahead], x, unit, units, rows, at, sums);
    }
  }
  finish_linear<kTiles>(sums, y, outputs, rows, add);
}

#define SPECEE_LINEAR(tiles)                                                                                \
  extern "C" __global__ void __launch_bounds__(kLinearThreads) linear_bf16_##tiles(                         \
      const uint16_t* w, const uint16_t* x, float* y, int outputs, int k, int rows, int add) {              \
    linear_bf16<tiles>(w, x, y, outputs, k, rows, add);                                                     \
  }                                                                                                         \
  extern "C" __global__ void __launch_bounds__(kLinearThreads)                                              \
      linear_int8_##tiles(const uint8_t* w, const uint16_t* scales, const int8_t* q, const float* x_scales, \
                          const float* x_sums, float* y, int outputs, int k, int rows, int add) {           \
    linear_packed<Int8Weights, tiles>(w, scales, {q, x_scales, x_sums}, y, outputs, k, rows, add);          \
  }                                                                                                         \
  extern "C" __global__ void __launch_bounds__(kLinearThreads)                                              \
      linear_int4_##tiles(const uint8_t* w, const uint16_t* scales, const int8_t* q, const float* x_scales, \
                          const float* x_sums, float* y, int outputs, int k, int rows, int add) {           \
    linear_packed<Int4Weights, tiles>(w, scales, {q, x_scales, x_sums}, y, outputs, k, rows, add);          \
  }

SPECEE_LINEAR(1)
SPECEE_LINEAR(2)
SPECEE_LINEAR(4)
SPECEE_LINEAR(8)

#undef SPECEE_LINEAR

}  // namespace specee::cuda
