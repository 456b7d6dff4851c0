// Rows of the embedding as fp32, which the residual stream begins with.
#pragma once

#include "numbers.cuh"

namespace specee::cuda {

inline constexpr int kEmbedThreads = 128;

// The column that the thread has; `hidden` or more where there is none.
__device__ inline int embed_column() { return static_cast<int>(blockIdx.x * kEmbedThreads + threadIdx.x); }

// Block (part of a row, row): x[row] = table[tokens[row]]. table (vocab x hidden) bf16; x (rows x hidden).
extern "C" __global__ void __launch_bounds__(kEmbedThreads)
    embed_bf16(const int* tokens, const uint16_t* table, float* x, int hidden) {
  const int i = embed_column();
  if (i >= hidden) return;
  const int64_t token = tokens[blockIdx.y];
  x[static_cast<int64_t>(blockIdx.y) * hidden + i] = Bf16::widen(table[token * hidden + i]);
}

// The same from weights that are packed for products, as specee/tiles.h lays them out.
extern "C" __global__ void __launch_bounds__(kEmbedThreads)
    embed_int8(const int* tokens, const int8_t* packed, const uint16_t* scales, float* x, int hidden) {
  const int i = embed_column();
  if (i >= hidden) return;
  const int token = tokens[blockIdx.y], units = hidden / kTileUnit;
  const float scale = f16_to_float(scales[int8_scale_offset(token, i, units)]);
  x[static_cast<int64_t>(blockIdx.y) * hidden + i] =
      scale * static_cast<float>(packed[int8_offset(token, i, units)]);
}

}  // namespace specee::cuda
