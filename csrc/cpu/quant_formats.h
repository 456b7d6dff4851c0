// The packed formats, taken apart into integer lanes of one quant_*.h: which bytes of a unit of 32 weights
// become the weights of a step (four k), and what they are scaled by. The layout is that of kernels.h.
#pragma once

#include "cpu/each_step.h"
#include "cpu/kernels.h"

namespace {

using specee::kLanes;
using specee::kUnit;
using specee::WeightType;

inline constexpr int kSteps = kUnit / 4;              // groups of four k in a unit
inline constexpr int kVectorBytes = 4 * kLanes;       // [16 outputs][4 k]
inline constexpr int kHalves = kLanes / kQuantLanes;  // times kQuantLanes outputs in a block

// What kQuantLanes outputs of a unit are multiplied by.
template <int Groups>
struct QuantScales {
  QFloats scale[Groups];  // of each 32 / Groups k
  QFloats minimum;
};

// Step S of a unit of nibbles; `p` points at the lane group's first byte of the unit's first vector.
template <int S>
inline QBytes nibbles(const char* p) {
  const QBytes pair = qload(p + S % 4 * kVectorBytes);
  return S < 4 ? qlow(pair) : qhigh(pair);
}

// A format: kLimit is the largest magnitude of a weight as stored, kOffset what was added to make it so.
// weights<S>() and scales() read lanes [lane, lane + kQuantLanes) of unit u of a checkpoint block.
struct Q4_0Format {
  static constexpr WeightType kType = WeightType::q4_0;
  static constexpr int kLimit = 15, kOffset = 8, kGroups = 1;
  static constexpr bool kSigned = false, kMinimum = false;
  template <int S>
  static inline QBytes weights(const char* quants, int lane) {
    return nibbles<S>(quants + 4 * lane);
  }
  static inline QuantScales<1> scales(const char* header, int, int lane) {
    return {{qload_f16(header + 2 * lane)}, qzero()};
  }
};

struct Q4_1Format : Q4_0Format {
  static constexpr WeightType kType = WeightType::q4_1;
  static constexpr int kOffset = 0;
  static constexpr bool kMinimum = true;
  static inline QuantScales<1> scales(const char* header, int, int lane) {
    return {{qload_f16(header + 2 * lane)}, qload_f16(header + 32 + 2 * lane)};
  }
};

struct Q8_0Format {
  static constexpr WeightType kType = WeightType::q8_0;
  static constexpr int kLimit = 128, kOffset = kSignedOffset, kGroups = 1;
  static constexpr bool kSigned = true, kMinimum = false;
  template <int S>
  static inline QBytes weights(const char* quants, int lane) {
    return qload_signed(quants + S * kVectorBytes + 4 * lane);
  }
  static inline QuantScales<1> scales(const char* header, int, int lane) {
    return {{qload_f16(header + 2 * lane)}, qzero()};
  }
};

// Scales of Q4_K and Q5_K: d and -dmin of 256 weights, then a byte each of scale and minimum per unit.
struct Q4KFormat : Q4_1Format {
  static constexpr WeightType kType = WeightType::q4_k;
  static inline QuantScales<1> scales(const char* header, int u, int lane) {
    const char* own = header + 64 + u * 32 + lane;
    return {{qmul(qload_f16(header + 2 * lane), qload_u8(own))},
            qmul(qload_f16(header + 32 + 2 * lane), qload_u8(own + 16))};
  }
};

struct Q5KFormat : Q4KFormat {
  static constexpr WeightType kType = WeightType::q5_k;
  static constexpr int kLimit = 31;
  template <int S>
  static inline QBytes weights(const char* quants, int lane) {
    return qjoin<S, 1>(nibbles<S>(quants + 4 * lane), qload(quants + 4 * kVectorBytes + 4 * lane));
  }
};

struct Q6KFormat {
  static constexpr WeightType kType = WeightType::q6_k;
  static constexpr int kLimit = 63, kOffset = 32, kGroups = 2;
  static constexpr bool kSigned = false, kMinimum = false;
  template <int S>
  static inline QBytes weights(const char* quants, int lane) {
    return qjoin<2 * (S % 4), 2>(nibbles<S>(quants + 4 * lane),
                                 qload(quants + (4 + S / 4) * kVectorBytes + 4 * lane));
  }
  static inline QuantScales<2> scales(const char* header, int u, int lane) {
    const QFloats d = qload_f16(header + 2 * lane);
    const char* own = header + 32 + u * 32 + lane;
    return {{qmul(d, qload_i8(own)), qmul(d, qload_i8(own + 16))}, qzero()};
  }
};

// Some quantised rows.
struct QuantRows {
  const char* first;
  ptrdiff_t stride;

  const specee::QuantUnit& unit(int r, int u) const {
    return reinterpret_cast<const specee::QuantUnit*>(first + r * stride)[u];
  }
};

// What a dot product with the group begins with, so that the format's offset is taken off again.
template <class Format, int Group>
inline int32_t dot_start(const specee::QuantUnit& x) {
  if constexpr (Format::kOffset == 0) return 0;
  return -Format::kOffset * (Format::kGroups == 1 ? x.sums[0] + x.sums[1] : x.sums[Group]);
}

// acc + scale * (the group's dot product), and after the last group + minimum * (scaled sum of the inputs)
template <class Format, int Group>
inline QFloats add_scaled(const QuantScales<Format::kGroups>& by, const QInts& dots,
                          const specee::QuantUnit& x, QFloats acc) {
  acc = qfma(qmul(by.scale[Group], qset(x.scale)), qfloats(dots), acc);
  if constexpr (Format::kMinimum && Group + 1 == Format::kGroups)
    acc = qfma(by.minimum, qset(x.scaled_sum), acc);
  return acc;
}

}  // namespace
