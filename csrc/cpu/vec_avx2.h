// Sixteen floats as two AVX2 registers.
#pragma once

#include <immintrin.h>

#include "specee/numerics.h"

namespace {

struct Vec {
  __m256 lo, hi;
};

inline Vec vzero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Vec vset(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline Vec vspread(float value) { return vset(value); }
inline Vec vload(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void vstore(float* p, Vec a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline __m256 widen_bf16(const uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline Vec vload_bf16(const uint16_t* p) { return {widen_bf16(p), widen_bf16(p + 8)}; }
inline __m256 widen_f16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vec vload_f16(const uint16_t* p) { return {widen_f16(p), widen_f16(p + 8)}; }
inline __m256i load_pairs(const uint16_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline Vec vload_bf16_even(const uint16_t* p) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(load_pairs(p), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(load_pairs(p + 16), 16))};
}
inline Vec vload_bf16_odd(const uint16_t* p) {
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm256_castsi256_ps(_mm256_and_si256(load_pairs(p), high)),
          _mm256_castsi256_ps(_mm256_and_si256(load_pairs(p + 16), high))};
}
inline Vec vfma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
// acc += a * b, fused, in acc's own registers. Spelled as assembly because GCC otherwise likes to overwrite a
// factor instead, runs out of registers and spills accumulators in the innermost loop, at half the speed.
inline void vaccumulate(Vec& acc, Vec a, Vec b) {
  __asm__("vfmadd231ps %2, %1, %0" : "+x"(acc.lo) : "x"(a.lo), "x"(b.lo));
  __asm__("vfmadd231ps %2, %1, %0" : "+x"(acc.hi) : "x"(a.hi), "x"(b.hi));
}
inline Vec vadd(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline Vec vsub(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline Vec vmul(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline Vec vdiv(Vec a, Vec b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline Vec vmax(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline __m256 keep_lanes(__m256 a, __m256i index, int begin, int end, float other) {
  const __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(begin), index);
  const __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32(end), index);
  const __m256i keep = _mm256_andnot_si256(below, inside);
  return _mm256_blendv_ps(_mm256_set1_ps(other), a, _mm256_castsi256_ps(keep));
}
inline Vec vkeep(Vec a, int begin, int end, float other) {
  const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
  return {keep_lanes(a.lo, low, begin, end, other), keep_lanes(a.hi, high, begin, end, other)};
}
// Fixed tree: lanes i and i + 8, then i + 4, i + 2, i + 1.
inline float vsum(Vec a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float vlargest(Vec a) {
  const __m256 eight = _mm256_max_ps(a.lo, a.hi);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline __m256 pow2_shifted(__m256 t) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f800000)));
}
inline Vec vpow2_shifted(Vec t) { return {pow2_shifted(t.lo), pow2_shifted(t.hi)}; }
inline void vstore_f16(uint16_t* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}
// The largest of the lanes' bit patterns without their signs: NaN beats infinity beats every number.
inline uint32_t vlargest_magnitude(Vec a, Vec b) {
  const __m256i mask = _mm256_set1_epi32(0x7fffffff);
  const auto bits = [&mask](__m256 v) { return _mm256_and_si256(_mm256_castps_si256(v), mask); };
  const __m256i most =
      _mm256_max_epi32(_mm256_max_epi32(bits(a.lo), bits(a.hi)), _mm256_max_epi32(bits(b.lo), bits(b.hi)));
  __m128i top = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0x4e));
  top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(top));
}
// For t = 1.5 * 2^23 + n in every lane: n as int8, and the sum of all n.
inline int32_t vstore_shifted(int8_t* p, Vec t) {
  const __m256i base = _mm256_set1_epi32(0x4b400000);
  const __m256i lo = _mm256_sub_epi32(_mm256_castps_si256(t.lo), base);
  const __m256i hi = _mm256_sub_epi32(_mm256_castps_si256(t.hi), base);
  const __m256i low_byte = _mm256_set1_epi32(0xff);
  // Packing works within 128-bit halves; the permutation puts the four pieces in order.
  __m256i packed = _mm256_packus_epi32(_mm256_and_si256(lo, low_byte), _mm256_and_si256(hi, low_byte));
  packed = _mm256_permute4x64_epi64(packed, 0xd8);
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  const __m256i both = _mm256_add_epi32(lo, hi);
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
  return _mm_cvtsi128_si32(sum);
}

inline uint64_t sweep_bytes(const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  __m256i sum[8];
  for (int j = 0; j < 8; ++j) sum[j] = _mm256_setzero_si256();
  for (size_t i = 0; i < bytes; i += 256)
    for (int j = 0; j < 8; ++j)
      sum[j] = _mm256_add_epi64(sum[j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i + 32 * j)));
  for (int j = 1; j < 8; ++j) sum[0] = _mm256_add_epi64(sum[0], sum[j]);
  alignas(32) uint64_t lane[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lane), sum[0]);
  return lane[0] + lane[1] + lane[2] + lane[3];
}

// 16 registers: at most 12 accumulators (two per Vec), the rest for weights and the broadcast.
inline constexpr int kTileRows = 6;
inline constexpr int kManyTileRows = 6;
inline constexpr int tile_blocks(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }
// Intel's prefetchers have more requests under way than fetch instructions may; on AMD's Zen 3 one row gains
// 10 to 20 % by fetching.
inline constexpr int kFetchRows = 4;  // from here on all do
inline int fetch_rows() { return __builtin_cpu_is("intel") ? kFetchRows : 1; }
inline constexpr bool kFewRegisters = true;
inline constexpr int kAttentionAccumulators = 6;
inline constexpr int kAttentionRowHeads = 3;

}  // namespace
