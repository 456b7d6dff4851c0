// Row-linear: y[r][n] = sum over k, in order, of x[r][k] * w[n][k], for panels as in kernels.h.
#pragma once

#include "cpu/kernels.h"

namespace {

using specee::Epilogue;
using specee::kLanes;
using specee::LinearCall;

inline constexpr int kGroupBlocks =
    4;  // most blocks taken together: their weights stay cached across row tiles
inline constexpr ptrdiff_t kStepBytes = 64;  // weight bytes of one block and one step, in every format

// A format says how a step's 64 weight bytes are read. A step has one or more parts, taken in order, so that
// only one part's weights occupy registers beside the accumulators.
struct F32Format {
  using Input = float;
  static constexpr int kInputsPerStep = 1;
  static constexpr int kParts = 1;
  using Weights = Vec;
  template <int Part>
  static inline Vec load(const char* p) {
    return vload(reinterpret_cast<const float*>(p));
  }
  template <int Part>
  static inline void step(const Vec& w, const float* x, Vec& acc) {
    vaccumulate(acc, w, vset(x[0]));
  }
};

struct Bf16Format {
  using Input = float;  // already rounded to bf16
  static constexpr int kInputsPerStep = 2;
  static constexpr int kParts = 2;
  using Weights = Vec;
  template <int Part>
  static inline Vec load(const char* p) {
    const uint16_t* pairs = reinterpret_cast<const uint16_t*>(p);
    return Part == 0 ? vload_bf16_even(pairs) : vload_bf16_odd(pairs);
  }
  template <int Part>
  static inline void step(const Vec& w, const float* x, Vec& acc) {
    vaccumulate(acc, w, vset(x[Part]));
  }
};

// out[block][row][16]
using TileOut = float (*)[kTileRows][kLanes];

// Weights to fetch into the second-level cache while a tile computes: the next group's, spread over this
// group's row tiles. Hardware prefetchers alone let memory and arithmetic take turns as soon as a tile has
// more than two rows.
struct Ahead {
  uintptr_t from;      // an address, not a pointer: a short last group leaves part of it past the weights
  ptrdiff_t per_step;  // bytes

  void fetch(ptrdiff_t offset) const {
    __builtin_prefetch(reinterpret_cast<const void*>(from + static_cast<uintptr_t>(offset)), 0, 2);
  }
};

template <class Format, int Part, int R, int B>
inline void tile_part(const char* w, ptrdiff_t block_bytes, const typename Format::Input* x,
                      ptrdiff_t x_stride, Vec (&acc)[B][R]) {
#pragma GCC unroll 4
  for (int b = 0; b < B; ++b) {
    const typename Format::Weights weights = Format::template load<Part>(w + b * block_bytes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) Format::template step<Part>(weights, x + r * x_stride, acc[b][r]);
    // Broadcasts are read again for the next block: kept, R of them would take the accumulators' registers.
    if constexpr (R > 1) __asm__("" : "+r"(x));
  }
}

template <class Format, int R, int B>
inline void tile(const char* w, ptrdiff_t block_bytes, const typename Format::Input* x, ptrdiff_t x_stride,
                 int steps, const Ahead& ahead, TileOut out) {
  Vec acc[B][R];
  for (int b = 0; b < B; ++b)
    for (int r = 0; r < R; ++r) acc[b][r] = vzero();
  for (int s = 0; s < steps; ++s) {
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) ahead.fetch(b * block_bytes + s * ahead.per_step);
    tile_part<Format, 0, R, B>(w + s * kStepBytes, block_bytes, x + s * Format::kInputsPerStep, x_stride,
                               acc);
    if constexpr (Format::kParts > 1)
      tile_part<Format, 1, R, B>(w + s * kStepBytes, block_bytes, x + s * Format::kInputsPerStep, x_stride,
                                 acc);
  }
  for (int b = 0; b < B; ++b)
    for (int r = 0; r < R; ++r) vstore(out[b][r], acc[b][r]);
}

template <class Format, int R, int B>
inline int tile_run(int b, const char* w, int blocks, const typename Format::Input* x, ptrdiff_t x_stride,
                    int steps, const Ahead& ahead, TileOut out) {
  const ptrdiff_t block_bytes = steps * kStepBytes;
  for (; b + B <= blocks; b += B) {
    const ptrdiff_t offset = b * block_bytes;
    const Ahead from_here = {ahead.from + static_cast<uintptr_t>(offset), ahead.per_step};
    tile<Format, R, B>(w + offset, block_bytes, x, x_stride, steps, from_here, out + b);
  }
  return b;
}

template <class Format, int R>
void row_tile(const char* w, int blocks, const typename Format::Input* x, ptrdiff_t x_stride, int steps,
              const Ahead& ahead, TileOut out) {
  constexpr int B = tile_blocks(R);
  int b = tile_run<Format, R, B>(0, w, blocks, x, x_stride, steps, ahead, out);
  if constexpr (B > 2) b = tile_run<Format, R, 2>(b, w, blocks, x, x_stride, steps, ahead, out);
  if constexpr (B > 1) tile_run<Format, R, 1>(b, w, blocks, x, x_stride, steps, ahead, out);
}

template <class Format>
using RowTile = void (*)(const char*, int, const typename Format::Input*, ptrdiff_t, int, const Ahead&,
                         TileOut);

// One entry per row count, 1..R.
template <class Format, int R>
struct RowTiles : RowTiles<Format, R - 1> {
  static inline RowTile<Format> pick(int rows) {
    return rows == R ? &row_tile<Format, R> : RowTiles<Format, R - 1>::pick(rows);
  }
};
template <class Format>
struct RowTiles<Format, 1> {
  static inline RowTile<Format> pick(int) { return &row_tile<Format, 1>; }
};

inline void write_columns(float* y, const Vec& value, int column, int outputs, bool add) {
  if (column + kLanes <= outputs) {
    vstore(y + column, add ? vadd(vload(y + column), value) : value);
    return;
  }
  float lane[kLanes];
  vstore(lane, value);
  for (int i = 0; column + i < outputs; ++i) y[column + i] = add ? y[column + i] + lane[i] : lane[i];
}

inline Vec with_bias(const float* result, const float* bias, int block) {
  const Vec value = vload(result);
  return bias ? vadd(value, vload(bias + block * kLanes)) : value;
}

inline void finish(const LinearCall& call, TileOut out, int block, int blocks, int row, int rows) {
  const int outputs = call.outputs - call.column_origin;
  for (int r = 0; r < rows; ++r) {
    float* y = call.y + (row + r) * call.y_stride;
    if (call.epilogue == Epilogue::swiglu) {
      for (int b = 0; b < blocks; b += 2) {
        const Vec gate = with_bias(out[b][r], call.bias, block + b);
        const Vec up = with_bias(out[b + 1][r], call.bias, block + b + 1);
        write_columns(y, vmul(vsilu(gate), up), (block + b) / 2 * kLanes - call.column_origin, outputs,
                      false);
      }
    } else {
      for (int b = 0; b < blocks; ++b)
        write_columns(y, with_bias(out[b][r], call.bias, block + b),
                      (block + b) * kLanes - call.column_origin, outputs, call.epilogue == Epilogue::add);
    }
  }
}

// Two groups, the one in use and the next, should fit the second-level cache; gate and up blocks go together.
inline int group_blocks(ptrdiff_t block_bytes, Epilogue epilogue) {
  if (block_bytes <= 64 * 1024) return kGroupBlocks;
  return block_bytes <= 256 * 1024 || epilogue == Epilogue::swiglu ? 2 : 1;
}

template <class Format>
void linear(const LinearCall& call) {
  const int steps = call.k / Format::kInputsPerStep;
  const char* weights = static_cast<const char*>(call.weights);
  const typename Format::Input* x = static_cast<const typename Format::Input*>(call.x);
  const int tiles = (call.rows + kTileRows - 1) / kTileRows;
  const ptrdiff_t block_bytes = steps * kStepBytes;
  const int group = group_blocks(block_bytes, call.epilogue);
  for (int block = call.block_begin; block < call.block_end; block += group) {
    const int left = call.block_end - block;
    const int blocks = left < group ? left : group;
    const char* w = weights + block * block_bytes;
    const char* next = block + group < call.ahead_end ? w + group * block_bytes : w;
    for (int t = 0, row = 0; t < tiles; ++t) {
      const int rows = (call.rows - row + tiles - t - 1) / (tiles - t);  // rows shared evenly among tiles
      const uintptr_t part = static_cast<uintptr_t>(t * (block_bytes / tiles));
      const Ahead ahead = {reinterpret_cast<uintptr_t>(next) + part, kStepBytes / tiles};
      float out[kGroupBlocks][kTileRows][kLanes];
      RowTiles<Format, kTileRows>::pick(rows)(w, blocks, x + row * call.x_stride, call.x_stride, steps, ahead,
                                              out);
      finish(call, out, block, blocks, row, rows);
      row += rows;
    }
  }
}

}  // namespace
