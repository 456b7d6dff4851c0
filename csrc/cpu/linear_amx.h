// Row-linear of bf16 by AMX: y[r][n] = sum over k, 32 at a time, of x[r][k] * w[n][k]. A vector in the layout
// of kernels.h, [16 outputs][2 k], is a row of a tile, so tiles are loaded from the weights as they are. One
// instruction multiplies sixteen rows, and hardly takes less for one; all numbers of rows go this way, so
// that a row's bits do not depend on how many are beside it. How it adds up is in docs/numerics.md. Written
// over the tiles of amx_tiles.h, or a test's, and a vector type: they come first.
#pragma once

#include <cstring>

#include "cpu/each_step.h"
#include "cpu/fetch_impl.h"
#include "cpu/kernels.h"
#include "cpu/linear_finish.h"

namespace {

inline constexpr int kPairBytes = 4;                              // two k of one output, or of one row
inline constexpr ptrdiff_t kStepBytes = kLanes * kPairBytes;      // two k of a block
inline constexpr int kTileSteps = kTileHeight;                    // two k each
inline constexpr ptrdiff_t kTileBytes = kTileSteps * kStepBytes;  // of a block
inline constexpr int kRowsTogether = 2 * kTileHeight;
inline constexpr int kLinesAhead = 4;  // of each of the next blocks, with each tile (NextBlocks)

// Tile registers: four of sums, and two each of inputs and of weights. Up to sixteen rows take four blocks
// together; more have two tiles of rows and two blocks.
inline constexpr int kSums = 0, kInputs = 4, kWeights = 6, kMostBlocks = 4;

// Some rows, and how many pairs of k they have.
struct Bf16Rows {
  const char* first;
  ptrdiff_t stride;  // in bytes
  int rows;          // at most kRowsTogether
  int steps;
  // Of each row, a tile's width apart, the k behind the last whole tile; null if there are none.
  const char* rest;
};

// Those of a row or a block, `bytes` for each pair of k, and zeros up to `size`. Before there are sums in
// tiles: this calls other libraries' functions.
inline void copy_rest(const char* from, int steps, ptrdiff_t bytes, char* to, ptrdiff_t size) {
  const ptrdiff_t done = steps / kTileSteps * kTileSteps * bytes, left = steps * bytes - done;
  std::memcpy(to, from + done, static_cast<size_t>(left));
  std::memset(to + left, 0, static_cast<size_t>(size - left));
}

// [block][kMaxRows][16], from the first of the rows on
using Bf16Out = float (*)[kLanes];

inline TileShapes bf16_shapes(int rows) {
  const bool two = rows > kTileHeight;
  const int heights[2] = {two ? kTileHeight : rows, two ? rows - kTileHeight : rows};
  TileShapes shapes;
  for (int i = 0; i < 2; ++i) {
    shapes.set(kInputs + i, heights[i], kStepBytes);
    shapes.set(kWeights + i, kTileHeight, kStepBytes);
    shapes.set(kSums + i, heights[0], kStepBytes);
    shapes.set(kSums + 2 + i, heights[1], kStepBytes);
  }
  return shapes;
}

// A tile's k: RowTiles tiles of rows, which begin at `x`, with Blocks blocks.
template <int RowTiles, int Blocks>
inline void multiply_bf16(const char* x, ptrdiff_t stride, const char* w, ptrdiff_t block_bytes) {
  tile_load<kInputs>(x, stride);
  if constexpr (RowTiles == 2) tile_load<kInputs + 1>(x + kTileHeight * stride, stride);
  each_step<Blocks>([&](auto step) {
    constexpr int b = decltype(step)::value, weights = kWeights + b % 2;
    tile_load<weights>(w + b * block_bytes, kStepBytes);
    tile_dot_bf16<kSums + b, kInputs, weights>();
    if constexpr (RowTiles == 2) tile_dot_bf16<kSums + 2 + b, kInputs + 1, weights>();
  });
}

template <int RowTiles, int Blocks>
void bf16_tile(const char* w, ptrdiff_t block_bytes, const Bf16Rows& x, const FetchShare& share,
               Bf16Out out) {
  static_assert(RowTiles * Blocks <= kMostBlocks);
  const int tiles = x.steps / kTileSteps;
  LoopFetch fetch(share, 1);
  const NextBlocks next(w + Blocks * block_bytes, block_bytes, tiles * kLinesAhead, share.stream);
  alignas(64) char rest[Blocks][kTileSteps][kStepBytes];
  for (int b = 0; b < Blocks && x.rest != nullptr; ++b)
    copy_rest(w + b * block_bytes, x.steps, kStepBytes, rest[b][0], kTileBytes);
  each_step<RowTiles>([](auto t) {
    each_step<Blocks>([](auto b) { tile_zero<kSums + 2 * decltype(t)::value + decltype(b)::value>(); });
  });
  for (int i = 0; i < tiles; ++i) {
    const char* at = w + i * kTileBytes;
    for (int line = 0; line < kLinesAhead; ++line) next.step<Blocks>((tiles - i) * kLinesAhead - line);
    fetch_pages<Blocks, kTileBytes>(at, block_bytes);
    multiply_bf16<RowTiles, Blocks>(x.first + i * kTileSteps * kPairBytes, x.stride, at, block_bytes);
  }
  if (x.rest != nullptr) multiply_bf16<RowTiles, Blocks>(x.rest, kStepBytes, rest[0][0], kTileBytes);
  each_step<RowTiles>([&](auto tile) {
    constexpr int t = decltype(tile)::value;
    each_step<Blocks>([&](auto step) {
      constexpr int b = decltype(step)::value;
      tile_store<kSums + 2 * t + b>(out[b * specee::kMaxRows + t * kTileHeight], sizeof *out);
    });
  });
  fetch.done();
}

template <int RowTiles>
void bf16_blocks(const char* w, int blocks, ptrdiff_t block_bytes, const Bf16Rows& x, const FetchShare& share,
                 Bf16Out out) {
  int b = 0;
  const auto run = [&](auto step) {
    constexpr int count = decltype(step)::value;
    for (; b + count <= blocks; b += count)
      bf16_tile<RowTiles, count>(w + b * block_bytes, block_bytes, x, share.times(count),
                                 out + b * specee::kMaxRows);
  };
  if constexpr (RowTiles == 1) run(Step<4>());
  run(Step<2>());
  run(Step<1>());
}

void linear_bf16_amx(const LinearCall& call) {
  const int steps = call.k / 2, together = call.rows <= kTileHeight ? kMostBlocks : kMostBlocks / 2;
  const int passes = (call.rows + kRowsTogether - 1) / kRowsTogether;
  const ptrdiff_t block_bytes = steps * kStepBytes, stride = call.x_stride * ptrdiff_t{sizeof(uint16_t)};
  const FetchShare share = {call.stream, block_bytes / passes, false};
  alignas(64) char rest[specee::kMaxRows][kStepBytes];
  for (int r = 0; r < call.rows && steps % kTileSteps != 0; ++r)
    copy_rest(static_cast<const char*>(call.x) + r * stride, steps, kPairBytes, rest[r], kStepBytes);
  int shaped = 0;  // rows that the tiles have shapes for
  for (int block = call.block_begin; block < call.block_end; block += together) {
    const int left = call.block_end - block, blocks = left < together ? left : together;
    const char* w = static_cast<const char*>(call.weights) + block * block_bytes;
    float out[kMostBlocks][specee::kMaxRows][kLanes];
    for (int p = 0, row = 0; p < passes; ++p) {
      const int rows = (call.rows - row + passes - p - 1) / (passes - p);  // shared evenly
      if (rows != shaped) use_tiles(bf16_shapes(rows));
      shaped = rows;
      const char* first = static_cast<const char*>(call.x) + row * stride;
      const Bf16Rows x = {first, stride, rows, steps, steps % kTileSteps == 0 ? nullptr : rest[row]};
      if (rows <= kTileHeight)
        bf16_blocks<1>(w, blocks, block_bytes, x, share, out[0] + row);
      else
        bf16_blocks<2>(w, blocks, block_bytes, x, share, out[0] + row);
      row += rows;
    }
    finish<specee::kMaxRows>(call, out, block, blocks, 0, call.rows);
  }
  release_tiles();
}

}  // namespace
