// Row-linear for packed blocks: y[r][n] = sum over units, in order, of
//   fma(weight scale * input scale, integer dot product, .)  and, for formats with a minimum,
//   fma(minimum, input scale * sum of the unit's inputs, .)
// with the layout of kernels.h and the inputs of QuantRecord. Written over the integer lanes of one
// quant_*.h.
#pragma once

#include "cpu/fetch_impl.h"
#include "cpu/kernels.h"
#include "cpu/linear_finish.h"

namespace {

using specee::kUnit;
using specee::WeightType;

inline constexpr int kSteps = kUnit / 4;                 // groups of four k in a unit
inline constexpr int kVectorBytes = 4 * specee::kLanes;  // [16 outputs][4 k]

// One unit of kQuantLanes outputs, ready to be multiplied.
template <int Groups>
struct QuantUnit {
  QBytes w[kSteps];
  QFloats scale[Groups];  // of each 32 / Groups k
  QFloats minimum;
};

// `p` points at the lane group's first byte of the unit's first vector.
template <int Groups>
inline void load_nibbles(const char* p, QuantUnit<Groups>& unit) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const QBytes pair = qload(p + j * kVectorBytes);
    unit.w[j] = qlow(pair);
    unit.w[j + 4] = qhigh(pair);
  }
}

// A format: kLimit is the largest magnitude of a weight as stored, kOffset what was added to make it so.
// load() reads lanes [lane, lane + kQuantLanes) of unit u of a checkpoint block.
struct Q4_0Format {
  static constexpr WeightType kType = WeightType::q4_0;
  static constexpr int kLimit = 15, kOffset = 8, kGroups = 1;
  static constexpr bool kSigned = false, kMinimum = false;
  static inline void load(const char* header, const char* quants, int, int lane, QuantUnit<1>& unit) {
    load_nibbles(quants + 4 * lane, unit);
    unit.scale[0] = qload_f16(header + 2 * lane);
  }
};

struct Q4_1Format {
  static constexpr WeightType kType = WeightType::q4_1;
  static constexpr int kLimit = 15, kOffset = 0, kGroups = 1;
  static constexpr bool kSigned = false, kMinimum = true;
  static inline void load(const char* header, const char* quants, int, int lane, QuantUnit<1>& unit) {
    load_nibbles(quants + 4 * lane, unit);
    unit.scale[0] = qload_f16(header + 2 * lane);
    unit.minimum = qload_f16(header + 32 + 2 * lane);
  }
};

struct Q8_0Format {
  static constexpr WeightType kType = WeightType::q8_0;
  static constexpr int kLimit = 128, kOffset = kSignedOffset, kGroups = 1;
  static constexpr bool kSigned = true, kMinimum = false;
  static inline void load(const char* header, const char* quants, int, int lane, QuantUnit<1>& unit) {
#pragma GCC unroll 8
    for (int s = 0; s < kSteps; ++s) unit.w[s] = qload_signed(quants + s * kVectorBytes + 4 * lane);
    unit.scale[0] = qload_f16(header + 2 * lane);
  }
};

// Scales of Q4_K and Q5_K: d and -dmin of 256 weights, then a byte each of scale and minimum per unit.
inline void load_super(const char* header, int u, int lane, QuantUnit<1>& unit) {
  const char* own = header + 64 + u * 32 + lane;
  unit.scale[0] = qmul(qload_f16(header + 2 * lane), qload_u8(own));
  unit.minimum = qmul(qload_f16(header + 32 + 2 * lane), qload_u8(own + 16));
}

struct Q4KFormat {
  static constexpr WeightType kType = WeightType::q4_k;
  static constexpr int kLimit = 15, kOffset = 0, kGroups = 1;
  static constexpr bool kSigned = false, kMinimum = true;
  static inline void load(const char* header, const char* quants, int u, int lane, QuantUnit<1>& unit) {
    load_nibbles(quants + 4 * lane, unit);
    load_super(header, u, lane, unit);
  }
};

struct Q5KFormat {
  static constexpr WeightType kType = WeightType::q5_k;
  static constexpr int kLimit = 31, kOffset = 0, kGroups = 1;
  static constexpr bool kSigned = false, kMinimum = true;
  static inline void load(const char* header, const char* quants, int u, int lane, QuantUnit<1>& unit) {
    load_nibbles(quants + 4 * lane, unit);
    const QBytes fifth = qload(quants + 4 * kVectorBytes + 4 * lane);
    unit.w[0] = qjoin<0, 1>(unit.w[0], fifth);
    unit.w[1] = qjoin<1, 1>(unit.w[1], fifth);
    unit.w[2] = qjoin<2, 1>(unit.w[2], fifth);
    unit.w[3] = qjoin<3, 1>(unit.w[3], fifth);
    unit.w[4] = qjoin<4, 1>(unit.w[4], fifth);
    unit.w[5] = qjoin<5, 1>(unit.w[5], fifth);
    unit.w[6] = qjoin<6, 1>(unit.w[6], fifth);
    unit.w[7] = qjoin<7, 1>(unit.w[7], fifth);
    load_super(header, u, lane, unit);
  }
};

struct Q6KFormat {
  static constexpr WeightType kType = WeightType::q6_k;
  static constexpr int kLimit = 63, kOffset = 32, kGroups = 2;
  static constexpr bool kSigned = false, kMinimum = false;
  static inline void load(const char* header, const char* quants, int u, int lane, QuantUnit<2>& unit) {
    load_nibbles(quants + 4 * lane, unit);
    const QBytes first = qload(quants + 4 * kVectorBytes + 4 * lane);
    const QBytes second = qload(quants + 5 * kVectorBytes + 4 * lane);
    unit.w[0] = qjoin<0, 2>(unit.w[0], first);
    unit.w[1] = qjoin<2, 2>(unit.w[1], first);
    unit.w[2] = qjoin<4, 2>(unit.w[2], first);
    unit.w[3] = qjoin<6, 2>(unit.w[3], first);
    unit.w[4] = qjoin<0, 2>(unit.w[4], second);
    unit.w[5] = qjoin<2, 2>(unit.w[5], second);
    unit.w[6] = qjoin<4, 2>(unit.w[6], second);
    unit.w[7] = qjoin<6, 2>(unit.w[7], second);
    const QFloats d = qload_f16(header + 2 * lane);
    const char* own = header + 32 + u * 32 + lane;
    unit.scale[0] = qmul(d, qload_i8(own));
    unit.scale[1] = qmul(d, qload_i8(own + 16));
  }
};

// Some quantised rows, with the places of their parts.
struct QuantRows {
  const char* first;
  ptrdiff_t stride;
  ptrdiff_t scales, scaled_sums, sums;

  const char* row(int r) const { return first + r * stride; }
};

// The row's integer dot product with one group of a unit.
template <class Format, int Group>
inline QInts group_dot(const QuantUnit<Format::kGroups>& unit, const char* row, const QuantRows& x, int u) {
  constexpr int steps = kSteps / Format::kGroups;
  int32_t start = 0;
  if constexpr (Format::kOffset != 0) {
    const int32_t* sums = reinterpret_cast<const int32_t*>(row + x.sums) + 2 * u;
    start = -Format::kOffset * (Format::kGroups == 1 ? sums[0] + sums[1] : sums[Group]);
  }
  const int8_t* q = reinterpret_cast<const int8_t*>(row) + u * kUnit + Group * steps * 4;
  return qdot<steps, Format::kLimit, Format::kSigned>(unit.w + Group * steps, q, start);
}

template <class Format>
inline QFloats add_unit(const QuantUnit<Format::kGroups>& unit, const char* row, const QuantRows& x, int u,
                        QFloats acc) {
  const QFloats scale = qset(reinterpret_cast<const float*>(row + x.scales)[u]);
  acc = qfma(qmul(unit.scale[0], scale), qfloats(group_dot<Format, 0>(unit, row, x, u)), acc);
  if constexpr (Format::kGroups == 2)
    acc = qfma(qmul(unit.scale[1], scale), qfloats(group_dot<Format, 1>(unit, row, x, u)), acc);
  if constexpr (Format::kMinimum)
    acc = qfma(unit.minimum, qset(reinterpret_cast<const float*>(row + x.scaled_sums)[u]), acc);
  return acc;
}

// R rows of one block.
template <class Format, int R>
void quant_tile(const char* block, int units, const QuantRows& x, const FetchShare& share,
                float (*out)[kLanes]) {
  constexpr specee::QuantLayout layout = specee::quant_layout(Format::kType);
  constexpr int units_together = layout.block / kUnit;
  LoopFetch fetch(share, units * (kLanes / kQuantLanes));
  for (int lane = 0; lane < kLanes; lane += kQuantLanes) {
    const char* header = block;
    QFloats acc[R];
    for (int r = 0; r < R; ++r) acc[r] = qzero();
    for (int u = 0; u < units; u += units_together, header += layout.packed_bytes())
      for (int i = 0; i < units_together; ++i) {
        fetch.step();
        QuantUnit<Format::kGroups> unit;
        Format::load(header, header + layout.header_bytes + i * layout.unit_bytes, i, lane, unit);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r] = add_unit<Format>(unit, x.row(r), x, u + i, acc[r]);
      }
    for (int r = 0; r < R; ++r) qstore(out[r] + lane, acc[r]);
  }
  fetch.done();
}

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
