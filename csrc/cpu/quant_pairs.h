// Sums of products that grow in 16 bits, two neighbours together: all steps of a group if they fit there,
// else two or one.
#pragma once

#include <type_traits>

#include "cpu/quant_formats.h"

namespace {

// Products of one step that a 16-bit lane holds: weights are at most kLimit, inputs 127, two to a lane.
template <class Format>
inline constexpr int kProducts = 32767 / (2 * 127 * Format::kLimit);

// Dot products of a group as they grow: in 16 bits while all of its steps fit there, else in 32.
template <class Format>
using QSum = std::conditional_t<(kProducts<Format> >= kSteps / Format::kGroups), QPairs, QInts>;

inline QInts settled(QPairs sum) { return qwiden(sum); }
inline QInts settled(QInts sum) { return sum; }

template <bool Begins, class Sum>
inline void add_to(Sum& sum, Sum a) {
  if constexpr (Begins)
    sum = a;
  else
    qaccumulate(sum, a);
}

template <class Format, bool Begins>
inline void grow(QSum<Format>& sum, QBytes w0, QBytes x0, QBytes w1, QBytes x1) {
  QPairs first = qproduct<Format::kSigned>(w0, x0);
  const QPairs second = qproduct<Format::kSigned>(w1, x1);
  if constexpr (std::is_same_v<QSum<Format>, QPairs>) {
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

// w0 * x0 + w1 * x1; `start` is added in the end.
template <class Format>
inline QSum<Format> qfirst(int32_t, QBytes w0, QBytes x0, QBytes w1, QBytes x1) {
  QSum<Format> sum;
  grow<Format, true>(sum, w0, x0, w1, x1);
  return sum;
}

template <class Format>
inline void qgrow(QSum<Format>& sum, QBytes w0, QBytes x0, QBytes w1, QBytes x1) {
  grow<Format, false>(sum, w0, x0, w1, x1);
}

template <class Format>
inline QInts qsettle(QSum<Format> sum, int32_t start) {
  QInts dots = settled(sum);
  if constexpr (Format::kOffset != 0) qaccumulate(dots, qint(start));
  return dots;
}

}  // namespace
