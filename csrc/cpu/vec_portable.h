// Sixteen floats as plain C++: the baseline every compiler can vectorise.
// Multiply-adds are fused where the hardware fuses them (aarch64), and plain elsewhere: a software fma would
// cost fifty times more and buy only equality with the other instruction sets.
#pragma once

#include "specee/numerics.h"

namespace {

struct Vec {
  float lane[16];
};

#define SPECEE_EACH for (int i = 0; i < 16; ++i)

inline Vec vzero() { return Vec{}; }
inline Vec vset(float value) {
  Vec r;
  SPECEE_EACH r.lane[i] = value;
  return r;
}
inline Vec vspread(float value) { return vset(value); }
inline Vec vload(const float* p) {
  Vec r;
  SPECEE_EACH r.lane[i] = p[i];
  return r;
}
inline void vstore(float* p, const Vec& a) { SPECEE_EACH p[i] = a.lane[i]; }
inline Vec vload_bf16(const uint16_t* p) {
  Vec r;
  SPECEE_EACH r.lane[i] = specee::bf16_to_float(p[i]);
  return r;
}
inline Vec vload_f16(const uint16_t* p) {
  Vec r;
  SPECEE_EACH r.lane[i] = specee::f16_to_float(p[i]);
  return r;
}
// Sixteen pairs of bf16, [lane][2]: the even or the odd members.
inline Vec vload_bf16_even(const uint16_t* p) {
  Vec r;
  SPECEE_EACH r.lane[i] = specee::bf16_to_float(p[2 * i]);
  return r;
}
inline Vec vload_bf16_odd(const uint16_t* p) {
  Vec r;
  SPECEE_EACH r.lane[i] = specee::bf16_to_float(p[2 * i + 1]);
  return r;
}
inline Vec vfma(const Vec& a, const Vec& b, const Vec& c) {
  Vec r;
#ifdef __FP_FAST_FMAF
  SPECEE_EACH r.lane[i] = __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]);
#else
  SPECEE_EACH r.lane[i] = a.lane[i] * b.lane[i] + c.lane[i];
#endif
  return r;
}
inline void vaccumulate(Vec& acc, const Vec& a, const Vec& b) { acc = vfma(a, b, acc); }
inline Vec vadd(const Vec& a, const Vec& b) {
  Vec r;
  SPECEE_EACH r.lane[i] = a.lane[i] + b.lane[i];
  return r;
}
inline Vec vsub(const Vec& a, const Vec& b) {
  Vec r;
  SPECEE_EACH r.lane[i] = a.lane[i] - b.lane[i];
  return r;
}
inline Vec vmul(const Vec& a, const Vec& b) {
  Vec r;
  SPECEE_EACH r.lane[i] = a.lane[i] * b.lane[i];
  return r;
}
inline Vec vdiv(const Vec& a, const Vec& b) {
  Vec r;
  SPECEE_EACH r.lane[i] = a.lane[i] / b.lane[i];
  return r;
}
// a > b ? a : b in every lane, as x86's max does it.
inline Vec vmax(const Vec& a, const Vec& b) {
  Vec r;
  SPECEE_EACH r.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
  return r;
}
// Lanes [begin, end) of a, other lanes replaced: whatever they held, NaN included, is gone.
inline Vec vkeep(const Vec& a, int begin, int end, float other) {
  Vec r;
  SPECEE_EACH r.lane[i] = i >= begin && i < end ? a.lane[i] : other;
  return r;
}
// Fixed tree: lanes i and i + 8, then i + 4, i + 2, i + 1.
inline float vsum(Vec a) {
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) a.lane[i] += a.lane[i + width];
  return a.lane[0];
}
inline float vlargest(const Vec& a) {
  float best = a.lane[0];
  for (int i = 1; i < 16; ++i)
    if (a.lane[i] > best) best = a.lane[i];
  return best;
}
// 2^n for t = 1.5 * 2^23 + n (the low mantissa bits of t are n).
inline Vec vpow2_shifted(const Vec& t) {
  Vec r;
  SPECEE_EACH r.lane[i] = specee::bits_float((specee::float_bits(t.lane[i]) << 23) + 0x3f800000u);
  return r;
}
inline void vstore_f16(uint16_t* p, const Vec& a) { SPECEE_EACH p[i] = specee::float_to_f16(a.lane[i]); }
// The largest of the lanes' bit patterns without their signs: NaN beats infinity beats every number.
inline uint32_t vlargest_magnitude(const Vec& a, const Vec& b) {
  uint32_t most = 0;
  SPECEE_EACH {
    const uint32_t x = specee::float_bits(a.lane[i]) & 0x7fffffffu;
    const uint32_t y = specee::float_bits(b.lane[i]) & 0x7fffffffu;
    most = x > most ? x : most;
    most = y > most ? y : most;
  }
  return most;
}
// For t = 1.5 * 2^23 + n in every lane: n as int8, and the sum of all n.
inline int32_t vstore_shifted(int8_t* p, const Vec& t) {
  uint32_t sum = 0;
  SPECEE_EACH {
    const uint32_t n = specee::float_bits(t.lane[i]) - 0x4b400000u;
    p[i] = static_cast<int8_t>(n & 0xffu);
    sum += n;
  }
  return static_cast<int32_t>(sum);
}
#undef SPECEE_EACH

inline uint64_t sweep_bytes(const void* data, size_t bytes) {
  const uint64_t* p = static_cast<const uint64_t*>(data);
  uint64_t sum[8] = {};
  for (size_t i = 0; i < bytes / 8; i += 8)
    for (int j = 0; j < 8; ++j) sum[j] += p[i + j];
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

// Tiles that keep the accumulators in registers: blocks of outputs beside `rows` rows.
inline constexpr int kTileRows = 4;
inline constexpr int kManyTileRows = 4;
inline constexpr int tile_blocks(int) { return 1; }
inline constexpr int kFetchRows = 5;
inline constexpr int fetch_rows() { return kFetchRows; }
inline constexpr bool kFewRegisters = false;
inline constexpr int kAttentionAccumulators = 2;
inline constexpr int kAttentionRowHeads = 2;

}  // namespace
