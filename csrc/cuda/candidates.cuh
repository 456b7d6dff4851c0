// Logits of a few candidates of each row, with the very bits that the whole head's product gives them
// (linear.cuh): a row's candidates are the 16 outputs of one block, which go through k in the same order.
// What score_candidates (scoring.cuh) makes of the same numbers differs in its last bits, as its sums run
// otherwise.
#pragma once

#include "linear.cuh"

namespace specee::cuda {

// Rows of the head that the thread multiplies: the candidates `group` and `group + 8` of its row, or -1.
struct Candidates {
  int low, high;

  __device__ Candidates(const int* tokens, int count) {
    const int* own = tokens + static_cast<int64_t>(blockIdx.y) * count;
    const int group = fragment().group;
    low = group < count ? own[group] : -1;
    high = group + 8 < count ? own[group + 8] : -1;
  }
};

// Block (0, row). w (vocab x hidden) bf16; x (rows x hidden) bf16, the normed rows; tokens (rows x count), of
// the vocabulary, at most 16 a row; logits (rows x count).
extern "C" __global__ void __launch_bounds__(kLinearThreads)
    candidates_bf16(const uint16_t* w, const uint16_t* x, const int* tokens, float* logits, int count,
                    int hidden) {
  const Candidates own(tokens, count);
  const bool has_low = own.low >= 0, has_high = own.high >= 0;
  const WeightRows weights = {w + static_cast<int64_t>(has_low ? own.low : 0) * hidden,
                              w + static_cast<int64_t>(has_high ? own.high : 0) * hidden, has_low, has_high};
  float sums[1][4] = {};
  const int64_t row = blockIdx.y;
  multiply_rows<1>(weights, x + row * hidden, hidden, 1, sums);
  finish_linear<1>(sums, logits + row * count, count, 1, 0);
}

// A candidate's part of a unit: the registers that stand for the first and the second half of its k.
struct PackedRow {
  uint32_t halves[2];
  float scale;

  __device__ PackedRow(const uint8_t* __restrict__ packed, const uint16_t* __restrict__ scales, int token,
                       int unit, int units, int member) {
    halves[0] = halves[1] = 0;
    scale = 0.0f;
    if (token < 0) return;
    for (int half = 0; half < 2; ++half)
      halves[half] = *reinterpret_cast<const uint32_t*>(
          packed + int8_offset(token, unit * kTileUnit + half * 16 + member * 4, units));
    scale = f16_to_float(scales[int8_scale_offset(token, unit * kTileUnit, units)]);
  }
};

// The same from packed int8 weights and quantised rows.
extern "C" __global__ void __launch_bounds__(kLinearThreads)
    candidates_int8(const uint8_t* w, const uint16_t* scales, const int8_t* q, const float* x_scales,
                    const float* x_sums, const int* tokens, float* logits, int count, int hidden) {
  const Candidates own(tokens, count);
  const Fragment at = fragment();
  const int units = hidden / kTileUnit;
  const int64_t row = blockIdx.y;
  const QuantisedRows x = {q + row * hidden, x_scales + row * units, x_sums + row * units};
  float sums[1][4] = {};
  for (int unit = at.warp; unit < units; unit += kLinearWarps) {
    const PackedRow low(w, scales, own.low, unit, units, at.member);
    const PackedRow high(w, scales, own.high, unit, units, at.member);
    const Unit weights = {
        {low.halves[0], high.halves[0], low.halves[1], high.halves[1]}, {low.scale, high.scale}, {}};
    add_unit<Int8Weights, 1>(weights, x, unit, units, 1, at, sums);
  }
  finish_linear<1>(sums, logits + row * count, count, 1, 0);
}

}  // namespace specee::cuda
