// A block's product for instruction sets with registers for the weights of a whole unit: they are taken apart
// once, and each row's dot product with them follows.
#pragma once

#include "cpu/fetch_impl.h"
#include "cpu/quant_formats.h"

namespace {

// The row's integer dot products with the groups of a unit.
template <class Format>
inline void unit_dots(const QBytes (&w)[kSteps], const QuantRows& x, int r, int u,
                      QInts (&dots)[Format::kGroups]) {
  constexpr int steps = kSteps / Format::kGroups;
  each_step<Format::kGroups>([&](auto group) {
    constexpr int g = decltype(group)::value;
    dots[g] = qdot<steps, Format::kLimit, Format::kSigned>(w + g * steps, x.inputs(r, u) + 4 * g * steps,
                                                           x.start<Format, g>(r, u));
  });
}

// R rows of one block.
template <class Format, int R>
void quant_tile(const char* block, int units, const QuantRows& x, const FetchShare& share,
                float (*out)[kLanes]) {
  constexpr specee::QuantLayout layout = specee::quant_layout(Format::kType);
  constexpr int units_together = layout.block / kUnit;
  LoopFetch fetch(share, units * kHalves);
  for (int lane = 0; lane < kLanes; lane += kQuantLanes) {
    const char* header = block;
    QFloats acc[R];
    for (int r = 0; r < R; ++r) acc[r] = qzero();
    for (int u = 0; u < units; u += units_together, header += layout.packed_bytes())
      for (int i = 0; i < units_together; ++i) {
        fetch.step();
        const char* quants = header + layout.header_bytes + i * layout.unit_bytes;
        QBytes w[kSteps];
        each_step<kSteps>([&](auto s) {
          w[decltype(s)::value] = Format::template weights<decltype(s)::value>(quants, lane);
        });
        const auto by = Format::scales(header, i, lane);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          QInts dots[Format::kGroups];
          unit_dots<Format>(w, x, r, u + i, dots);
          acc[r] = add_scaled<Format>(by, dots, x, r, u + i, acc[r]);
        }
      }
    for (int r = 0; r < R; ++r) qstore(out[r] + lane, acc[r]);
  }
  fetch.done();
}

}  // namespace
