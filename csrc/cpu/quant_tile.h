// A tile of a product: R rows by the outputs of B blocks, in parts of as many outputs as a vector of integers
// has lanes. Two steps' weights of all parts are taken apart at a time and multiplied with every row, so that
// inputs are spread over lanes once for all parts rather than for each: spreading is a load, and loads are
// what bound it. What sums of products grow in is the instruction set's choice (quant_pairs.h, quant_vnni.h).
#pragma once

#include "cpu/fetch_impl.h"
#include "cpu/quant_formats.h"

namespace {

// The parts of consecutive blocks.
struct QuantPanels {
  const char* first;
  ptrdiff_t block_bytes;

  const char* block(int part) const { return first + part / kHalves * block_bytes; }
  static constexpr int lane(int part) { return part % kHalves * kQuantLanes; }
};

// out[block][row][16]
using QuantOut = float (*)[kQuantRows][kLanes];

// The dot products of R rows with one group of a unit, whose bytes begin `at` bytes into each block.
template <class Format, int Group, int R, int P>
inline void group_dots(const QuantPanels& panels, ptrdiff_t at, const QuantRows& x, int u,
                       QInts (&dots)[P][R]) {
  constexpr int count = kSteps / Format::kGroups / 2;
  QSum<Format> sum[P][R];
  each_step<count>([&](auto pair) {
    constexpr int p = decltype(pair)::value;
    // A low and a high nibble of the same bytes, where both are of the group.
    constexpr int first = Format::kGroups == 1 ? p : Group * 4 + 2 * p;
    constexpr int second = Format::kGroups == 1 ? p + 4 : first + 1;
    QBytes w[2][P];
#pragma GCC unroll 8
    for (int h = 0; h < P; ++h) {
      w[0][h] = Format::template weights<first>(panels.block(h) + at, QuantPanels::lane(h));
      w[1][h] = Format::template weights<second>(panels.block(h) + at, QuantPanels::lane(h));
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const QSpread x0 = qspread(x.unit(r, u).q + 4 * first), x1 = qspread(x.unit(r, u).q + 4 * second);
#pragma GCC unroll 8
      for (int h = 0; h < P; ++h) {
        if constexpr (p == 0)
          sum[h][r] = qfirst<Format>(dot_start<Format, Group>(x.unit(r, u)), w[0][h], x0, w[1][h], x1);
        else
          qgrow<Format>(sum[h][r], w[0][h], x0, w[1][h], x1);
      }
    }
  });
#pragma GCC unroll 8
  for (int h = 0; h < P; ++h)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
      dots[h][r] = qsettle<Format>(sum[h][r], dot_start<Format, Group>(x.unit(r, u)));
}

// acc += that group, scaled. Unit i of the checkpoint block whose header is `header` bytes into each block.
template <class Format, int Group, int R, int P>
inline void add_group(const QuantPanels& panels, ptrdiff_t header, const QuantRows& x, int u, int i,
                      QFloats (&acc)[P][R]) {
  constexpr specee::QuantLayout layout = specee::quant_layout(Format::kType);
  QInts dots[P][R];
  group_dots<Format, Group>(panels, header + layout.header_bytes + i * layout.unit_bytes, x, u + i, dots);
#pragma GCC unroll 8
  for (int h = 0; h < P; ++h) {
    const auto by = Format::scales(panels.block(h) + header, i, QuantPanels::lane(h));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
      acc[h][r] = add_scaled<Format, Group>(by, dots[h][r], x.unit(r, u + i), acc[h][r]);
  }
}

template <class Format, int R, int B>
void quant_tile(const QuantPanels& panels, int units, const QuantRows& x, const FetchShare& share,
                QuantOut out) {
  constexpr specee::QuantLayout layout = specee::quant_layout(Format::kType);
  constexpr int units_together = layout.block / kUnit, P = B * kHalves;
  constexpr ptrdiff_t unit_share = layout.packed_bytes() / units_together;  // with its share of the header
  LoopFetch fetch(share, units);
  const NextBlocks next(panels.first + B * panels.block_bytes, panels.block_bytes, units, share.stream);
  QFloats acc[P][R];
  for (int h = 0; h < P; ++h)
    for (int r = 0; r < R; ++r) acc[h][r] = qzero();
  ptrdiff_t header = 0;
  for (int u = 0; u < units; u += units_together, header += layout.packed_bytes())
    for (int i = 0; i < units_together; ++i) {
      if (R >= kQuantFetchRows || share.fetches)
        fetch.step();
      else if constexpr (R >= kQuantNextRows)
        next.all<B, unit_share>(header + i * unit_share);
      else {
        next.step<B>(units - u - i);
        fetch_pages<B, unit_share>(panels.first + header + i * unit_share, panels.block_bytes);
      }
      add_group<Format, 0>(panels, header, x, u, i, acc);
      if constexpr (Format::kGroups == 2) add_group<Format, 1>(panels, header, x, u, i, acc);
    }
  for (int h = 0; h < P; ++h)
    for (int r = 0; r < R; ++r) qstore(out[h / kHalves][r] + QuantPanels::lane(h), acc[h][r]);
  fetch.done();
}

}  // namespace
