// Row-linear for packed blocks: y[r][n] = sum over units, in order, of
//   fma(weight scale * input scale, integer dot product, .)  and, for formats with a minimum,
//   fma(minimum, input scale * sum of the unit's inputs, .)
// with the layout of kernels.h and the inputs of QuantRecord. Written over the tiles of quant_units.h or
// quant_steps.h, of which the instruction set's file includes one.
#pragma once

#include "cpu/fetch_impl.h"
#include "cpu/kernels.h"
#include "cpu/linear_finish.h"
#include "cpu/quant_formats.h"

namespace {

using QuantTile = void (*)(const char*, int, const QuantRows&, const FetchShare&, float (*)[kLanes]);

// One entry per row count, 1..R.
template <class Format, int R>
struct QuantTiles {
  static inline QuantTile pick(int rows) {
    if constexpr (R > 1) {
      if (rows < R) return QuantTiles<Format, R - 1>::pick(rows);
    }
    return &quant_tile<Format, R>;
  }
};

template <class Format>
void linear_quant(const LinearCall& call) {
  const int units = call.k / kUnit, group = call.epilogue == Epilogue::swiglu ? 2 : 1;
  const int tiles = (call.rows + kQuantRows - 1) / kQuantRows;
  const specee::QuantRecord at = specee::quant_record(call.k);
  for (int block = call.block_begin; block < call.block_end; block += group) {
    for (int t = 0, row = 0; t < tiles; ++t) {
      const int rows = (call.rows - row + tiles - t - 1) / (tiles - t);  // rows shared evenly among tiles
      const QuantRows x = {static_cast<const char*>(call.x) + row * call.x_stride, call.x_stride, at.scales,
                           at.scaled_sums, at.sums};
      const QuantTile tile = QuantTiles<Format, kQuantRows>::pick(rows);
      float out[2][kQuantRows][kLanes];
      for (int b = 0; b < group; ++b)
        tile(static_cast<const char*>(call.weights) + (block + b) * call.block_bytes, units, x,
             {call.stream, call.block_bytes / tiles, call.rows}, out[b]);
      finish<kQuantRows>(call, out, block, group, row, rows);
      row += rows;
    }
  }
}

}  // namespace
