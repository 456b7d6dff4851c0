// Row-linear for packed blocks: y[r][n] = sum over units, in order, of
//   fma(weight scale * input scale, integer dot product, .)  and, for formats with a minimum,
//   fma(minimum, input scale * sum of the unit's inputs, .)
// with the layout and the inputs of kernels.h. Written over the tiles of quant_tile.h.
#pragma once

#include "cpu/fetch_impl.h"
#include "cpu/kernels.h"
#include "cpu/linear_finish.h"
#include "cpu/quant_formats.h"
#include "cpu/quant_tile.h"

namespace {

// All `blocks` of one tile of rows, B at a time while there are so many.
template <class Format, int R, int B>
inline int quant_tile_run(int b, const QuantPanels& panels, int blocks, int units, const QuantRows& x,
                          const FetchShare& share, QuantOut out) {
  for (; b + B <= blocks; b += B)
    quant_tile<Format, R, B>({panels.first + b * panels.block_bytes, panels.block_bytes}, units, x,
                             share.times(B), out + b);
  return b;
}

template <class Format, int R>
void quant_row_tile(const QuantPanels& panels, int blocks, int units, const QuantRows& x,
                    const FetchShare& share, QuantOut out) {
  constexpr int B = quant_blocks(R);
  int b = 0;
  if (!kQuantFetchedAlone || !share.fetches) {
    if constexpr (B > 1) b = quant_tile_run<Format, R, B>(b, panels, blocks, units, x, share, out);
    if constexpr (B > 4) b = quant_tile_run<Format, R, 4>(b, panels, blocks, units, x, share, out);
    if constexpr (B > 2) b = quant_tile_run<Format, R, 2>(b, panels, blocks, units, x, share, out);
  }
  quant_tile_run<Format, R, 1>(b, panels, blocks, units, x, share, out);
}

using QuantRowTile = void (*)(const QuantPanels&, int, int, const QuantRows&, const FetchShare&, QuantOut);

// One entry per row count, 1..R.
template <class Format, int R>
struct QuantRowTiles {
  static inline QuantRowTile pick(int rows) {
    if constexpr (R > 1) {
      if (rows < R) return QuantRowTiles<Format, R - 1>::pick(rows);
    }
    return &quant_row_tile<Format, R>;
  }
};

template <class Format>
void linear_quant(const LinearCall& call) {
  constexpr int kMost = 6;  // blocks taken together
  static_assert(quant_blocks(1) <= kMost && 2 * quant_blocks(4) <= kMost);
  const int units = call.k / kUnit, tiles = (call.rows + kQuantRows - 1) / kQuantRows;
  // As many as the first tile takes together: more, and the next tile would find them further away.
  const int group = whole_pairs(quant_blocks((call.rows + tiles - 1) / tiles), call.epilogue);
  for (int block = call.block_begin; block < call.block_end; block += group) {
    const int left = call.block_end - block, blocks = left < group ? left : group;
    const QuantPanels panels = {static_cast<const char*>(call.weights) + block * call.block_bytes,
                                call.block_bytes};
    for (int t = 0, row = 0; t < tiles; ++t) {
      const int rows = (call.rows - row + tiles - t - 1) / (tiles - t);  // rows shared evenly among tiles
      const QuantRows x = {static_cast<const char*>(call.x) + row * call.x_stride, call.x_stride};
      float out[kMost][kQuantRows][kLanes];
      QuantRowTiles<Format, kQuantRows>::pick(rows)(
          panels, blocks, units, x, {call.stream, call.block_bytes / tiles, call.rows >= quant_fetch_rows()},
          out);
      finish<kQuantRows>(call, out, block, blocks, row, rows);
      row += rows;
    }
  }
}

// Products of all types: those of packed ones, and what is given for the others; null where there is none.
constexpr specee::LinearKernels with_packed(specee::LinearKernel f32, specee::LinearKernel bf16,
                                            specee::LinearKernel f16) {
  return {{f32, bf16, f16, linear_quant<Q4_0Format>, linear_quant<Q4_1Format>, linear_quant<Q8_0Format>,
           linear_quant<Q4KFormat>, linear_quant<Q5KFormat>, linear_quant<Q6KFormat>}};
}

}  // namespace
