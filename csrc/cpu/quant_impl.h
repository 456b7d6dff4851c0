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
inline int quant_run(int b, const QuantPanels& panels, int blocks, int units, const QuantRows& x,
                     const FetchShare& share, QuantOut out) {
  for (; b + B <= blocks; b += B)
    quant_tile<Format, R, B>({panels.first + b * panels.block_bytes, panels.block_bytes}, units, x,
                             share.times(B), out + b);
  return b;
}

template <class Format, int R>
void quant_rows(const QuantPanels& panels, int blocks, int units, const QuantRows& x, const FetchShare& share,
                QuantOut out) {
  constexpr int B = quant_blocks(R);
  int b = quant_run<Format, R, B>(0, panels, blocks, units, x, share, out);
  if constexpr (B > 2) b = quant_run<Format, R, 2>(b, panels, blocks, units, x, share, out);
  if constexpr (B > 1) quant_run<Format, R, 1>(b, panels, blocks, units, x, share, out);
}

using QuantRun = void (*)(const QuantPanels&, int, int, const QuantRows&, const FetchShare&, QuantOut);

// One entry per row count, 1..R.
template <class Format, int R>
struct QuantRuns {
  static inline QuantRun pick(int rows) {
    if constexpr (R > 1) {
      if (rows < R) return QuantRuns<Format, R - 1>::pick(rows);
    }
    return &quant_rows<Format, R>;
  }
};

template <class Format>
void linear_quant(const LinearCall& call) {
  constexpr int most = quant_blocks(1) < 2 ? 2 : quant_blocks(1);  // gate and up blocks go together
  const int units = call.k / kUnit;
  const int tiles = (call.rows + kQuantRows - 1) / kQuantRows;
  for (int block = call.block_begin; block < call.block_end; block += most) {
    const int left = call.block_end - block, blocks = left < most ? left : most;
    const QuantPanels panels = {static_cast<const char*>(call.weights) + block * call.block_bytes,
                                call.block_bytes};
    for (int t = 0, row = 0; t < tiles; ++t) {
      const int rows = (call.rows - row + tiles - t - 1) / (tiles - t);  // rows shared evenly among tiles
      const QuantRows x = {static_cast<const char*>(call.x) + row * call.x_stride, call.x_stride};
      float out[most][kQuantRows][kLanes];
      QuantRuns<Format, kQuantRows>::pick(rows)(
          panels, blocks, units, x, {call.stream, call.block_bytes / tiles, call.rows >= kQuantFetchRows},
          out);
      finish<kQuantRows>(call, out, block, blocks, row, rows);
      row += rows;
    }
  }
}

}  // namespace
