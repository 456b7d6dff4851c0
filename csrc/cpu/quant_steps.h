// A block's product for instruction sets with few registers: two steps' weights of all its outputs at a time,
// multiplied with every row, so that inputs are spread over lanes once for the whole block rather than
// once for every half of it. Spreading is a load, and loads were what bound it.
#pragma once

#include <type_traits>

#include "cpu/fetch_impl.h"
#include "cpu/quant_formats.h"

namespace {

// Products of one step that a 16-bit lane holds: weights are at most kLimit, inputs 127, two to a lane.
template <class Format>
inline constexpr int kProducts = 32767 / (2 * 127 * Format::kLimit);

// Dot products of a group as they grow: in 16 bits while all of its steps fit there, else in 32.
template <class Format>
using Growing = std::conditional_t<(kProducts<Format> >= kSteps / Format::kGroups), QPairs, QInts>;

inline QInts settled(QPairs sum) { return qwiden(sum); }
inline QInts settled(QInts sum) { return sum; }

template <bool Begins, class Sum>
inline void add_to(Sum& sum, Sum a) {
  if constexpr (Begins)
    sum = a;
  else
    qaccumulate(sum, a);
}

// sum += first + second, `sum` being nothing yet if `Begins`.
template <class Format, bool Begins>
inline void grow(QPairs first, QPairs second, Growing<Format>& sum) {
  if constexpr (std::is_same_v<Growing<Format>, QPairs>) {
    add_to<Begins>(sum, first);
    qaccumulate(sum, second);
  } else if constexpr (kProducts<Format> >= 2) {
    qaccumulate(first, second);
    add_to<Begins>(sum, qwiden(first));
  } else {
    add_to<Begins>(sum, qwiden(first));
    qaccumulate(sum, qwiden(second));
  }
}

// The dot products of R rows with one group of a unit, all outputs.
template <class Format, int R, int Group>
inline void group_dots(const char* quants, const QuantRows& x, int u, QInts (&dots)[kHalves][R]) {
  constexpr int count = kSteps / Format::kGroups / 2;
  Growing<Format> sum[kHalves][R];
  each_step<count>([&](auto pair) {
    constexpr int p = decltype(pair)::value;
    // A low and a high nibble of the same bytes, where both are of the group.
    constexpr int first = Format::kGroups == 1 ? p : Group * 4 + 2 * p;
    constexpr int second = Format::kGroups == 1 ? p + 4 : first + 1;
    QBytes w[2][kHalves];
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      w[0][h] = Format::template weights<first>(quants, h * kQuantLanes);
      w[1][h] = Format::template weights<second>(quants, h * kQuantLanes);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const QBytes x0 = qspread(x.inputs(r, u) + 4 * first), x1 = qspread(x.inputs(r, u) + 4 * second);
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h)
        grow<Format, p == 0>(qproduct<Format::kSigned>(w[0][h], x0), qproduct<Format::kSigned>(w[1][h], x1),
                             sum[h][r]);
    }
  });
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      dots[h][r] = settled(sum[h][r]);
      if constexpr (Format::kOffset != 0) qaccumulate(dots[h][r], qint(x.start<Format, Group>(r, u)));
    }
}

// R rows of one block.
template <class Format, int R>
void quant_tile(const char* block, int units, const QuantRows& x, const FetchShare& share,
                float (*out)[kLanes]) {
  constexpr specee::QuantLayout layout = specee::quant_layout(Format::kType);
  constexpr int units_together = layout.block / kUnit;
  LoopFetch fetch(share, units);
  const char* header = block;
  QFloats acc[kHalves][R];
  for (int h = 0; h < kHalves; ++h)
    for (int r = 0; r < R; ++r) acc[h][r] = qzero();
  for (int u = 0; u < units; u += units_together, header += layout.packed_bytes())
    for (int i = 0; i < units_together; ++i) {
      fetch.step();
      const char* quants = header + layout.header_bytes + i * layout.unit_bytes;
      QInts dots[Format::kGroups][kHalves][R];
      each_step<Format::kGroups>([&](auto g) {
        group_dots<Format, R, decltype(g)::value>(quants, x, u + i, dots[decltype(g)::value]);
      });
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const auto by = Format::scales(header, i, h * kQuantLanes);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          QInts own[Format::kGroups];
          for (int g = 0; g < Format::kGroups; ++g) own[g] = dots[g][h][r];
          acc[h][r] = add_scaled<Format>(by, own, x, r, u + i, acc[h][r]);
        }
      }
    }
  for (int h = 0; h < kHalves; ++h)
    for (int r = 0; r < R; ++r) qstore(out[r] + h * kQuantLanes, acc[h][r]);
  fetch.done();
}

}  // namespace
