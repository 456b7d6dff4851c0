// Row-linear: y[r][n] = sum over k, in order, of x[r][k] * w[n][k], for panels as in kernels.h.
#pragma once

#include "cpu/fetch_impl.h"
#include "cpu/kernels.h"
#include "cpu/linear_finish.h"

namespace {

// Most blocks taken together.
inline constexpr int kGroupBlocks = 8;
static_assert(tile_blocks(1) <= kGroupBlocks && 2 * tile_blocks(kTileRows) <= kGroupBlocks);

inline constexpr int kFetchEvery = 4;  // steps between looks at what to fetch

// A format says how a step's kStepBytes weight bytes of one block are read. A step has one or more parts,
// taken in order, so that only one part's weights occupy registers beside the accumulators.
struct F32Format {
  using Input = float;
  static constexpr ptrdiff_t kStepBytes = 64;
  static constexpr int kInputsPerStep = 1;
  static constexpr int kParts = 1;
  using Weights = Vec;
  using Inputs = Vec;
  template <int Part>
  static inline Vec load(const char* p) {
    return vload(reinterpret_cast<const float*>(p));
  }
  template <int Part>
  static inline Vec spread(const float* x) {
    return vspread(x[Part]);
  }
  static inline void step(const Vec& w, const Vec& x, Vec& acc) { vaccumulate(acc, w, x); }
};

struct F16Format : F32Format {
  static constexpr ptrdiff_t kStepBytes = 32;
  template <int Part>
  static inline Vec load(const char* p) {
    return vload_f16(reinterpret_cast<const uint16_t*>(p));
  }
};

struct Bf16Format : F32Format {  // inputs are already rounded to bf16
  static constexpr int kInputsPerStep = 2;
  static constexpr int kParts = 2;
  template <int Part>
  static inline Vec load(const char* p) {
    const uint16_t* pairs = reinterpret_cast<const uint16_t*>(p);
    return Part == 0 ? vload_bf16_even(pairs) : vload_bf16_odd(pairs);
  }
};

// out[block][row][16]
using TileOut = float (*)[kTileRows][kLanes];

template <class Format, int Part, int R, int B>
inline void tile_part(const char* w, ptrdiff_t block_bytes, const typename Format::Input* x,
                      ptrdiff_t x_stride, Vec (&acc)[B][R]) {
  if constexpr (kFewRegisters) {
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) {
      const typename Format::Weights weights = Format::template load<Part>(w + b * block_bytes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        Format::step(weights, Format::template spread<Part>(x + r * x_stride), acc[b][r]);
      // Inputs are read again for the next block: kept, R of them would take the accumulators' registers.
      if constexpr (R > 1) __asm__("" : "+r"(x));
    }
  } else {  // inputs once for all blocks: spreading is a load, and loads would bind
    typename Format::Weights weights[B];
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) weights[b] = Format::template load<Part>(w + b * block_bytes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename Format::Inputs inputs = Format::template spread<Part>(x + r * x_stride);
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) Format::step(weights[b], inputs, acc[b][r]);
    }
  }
}

template <class Format, int R, int B>
inline void tile(const char* w, ptrdiff_t block_bytes, const typename Format::Input* x, ptrdiff_t x_stride,
                 int steps, const FetchShare& share, TileOut out) {
  LoopFetch fetch(share, (steps + kFetchEvery - 1) / kFetchEvery);
  const NextBlocks next(w + B * block_bytes, block_bytes, steps, share.stream);
  Vec acc[B][R];
  for (int b = 0; b < B; ++b)
    for (int r = 0; r < R; ++r) acc[b][r] = vzero();
  for (int s = 0; s < steps; ++s) {
    if (s % kFetchEvery == 0) {
      if (R >= kFetchRows || share.fetches)
        fetch.step();
      else
        fetch_pages<B, kFetchEvery * Format::kStepBytes>(w + s * Format::kStepBytes, block_bytes);
    }
    if (R < kFetchRows && !share.fetches) next.step<B>(steps - s);
    tile_part<Format, 0, R, B>(w + s * Format::kStepBytes, block_bytes, x + s * Format::kInputsPerStep,
                               x_stride, acc);
    if constexpr (Format::kParts > 1)
      tile_part<Format, 1, R, B>(w + s * Format::kStepBytes, block_bytes, x + s * Format::kInputsPerStep,
                                 x_stride, acc);
  }
  for (int b = 0; b < B; ++b)
    for (int r = 0; r < R; ++r) vstore(out[b][r], acc[b][r]);
  fetch.done();
}

template <class Format, int R, int B>
inline int tile_run(int b, const char* w, int blocks, const typename Format::Input* x, ptrdiff_t x_stride,
                    int steps, const FetchShare& share, TileOut out) {
  const ptrdiff_t block_bytes = steps * Format::kStepBytes;
  for (; b + B <= blocks; b += B) {
    const ptrdiff_t offset = b * block_bytes;
    tile<Format, R, B>(w + offset, block_bytes, x, x_stride, steps, share.times(B), out + b);
  }
  return b;
}

template <class Format, int R>
void row_tile(const char* w, int blocks, const typename Format::Input* x, ptrdiff_t x_stride, int steps,
              const FetchShare& share, TileOut out) {
  constexpr int B = tile_blocks(R);
  int b = tile_run<Format, R, B>(0, w, blocks, x, x_stride, steps, share, out);
  if constexpr (B > 4) b = tile_run<Format, R, 4>(b, w, blocks, x, x_stride, steps, share, out);
  if constexpr (B > 2) b = tile_run<Format, R, 2>(b, w, blocks, x, x_stride, steps, share, out);
  if constexpr (B > 1) tile_run<Format, R, 1>(b, w, blocks, x, x_stride, steps, share, out);
}

template <class Format>
using RowTile = void (*)(const char*, int, const typename Format::Input*, ptrdiff_t, int, const FetchShare&,
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

// Blocks taken together: as many as one tile of rows takes. More tiles find them cached, if two groups, the
// one in use and the next, fit the second-level cache.
inline int group_blocks(int rows, ptrdiff_t block_bytes, Epilogue epilogue) {
  if (rows <= kTileRows) return whole_pairs(tile_blocks(rows), epilogue);
  if (block_bytes <= 64 * 1024) return 4;
  return whole_pairs(block_bytes <= 256 * 1024 ? 2 : 1, epilogue);
}

template <class Format>
void linear(const LinearCall& call) {
  const int steps = call.k / Format::kInputsPerStep;
  const char* weights = static_cast<const char*>(call.weights);
  const typename Format::Input* x = static_cast<const typename Format::Input*>(call.x);
  const ptrdiff_t block_bytes = steps * Format::kStepBytes;
  const int group = group_blocks(call.rows, block_bytes, call.epilogue);
  const bool many = call.rows > kTileRows && group >= tile_blocks(kManyTileRows);
  const int tile_rows = many ? kManyTileRows : kTileRows;
  const int tiles = (call.rows + tile_rows - 1) / tile_rows;
  for (int block = call.block_begin; block < call.block_end; block += group) {
    const int left = call.block_end - block;
    const int blocks = left < group ? left : group;
    const char* w = weights + block * block_bytes;
    for (int t = 0, row = 0; t < tiles; ++t) {
      const int rows = (call.rows - row + tiles - t - 1) / (tiles - t);  // rows shared evenly among tiles
      float out[kGroupBlocks][kTileRows][kLanes];
      RowTiles<Format, kTileRows>::pick(rows)(w, blocks, x + row * call.x_stride, call.x_stride, steps,
                                              {call.stream, block_bytes / tiles, call.rows >= fetch_rows()},
                                              out);
      finish<kTileRows>(call, out, block, blocks, row, rows);
      row += rows;
    }
  }
}

}  // namespace
