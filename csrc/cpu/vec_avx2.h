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
inline __m256 pow2_shifted(__m256 t) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f800000)));
}
inline Vec vpow2_shifted(Vec t) { return {pow2_shifted(t.lo), pow2_shifted(t.hi)}; }

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
inline constexpr int tile_blocks(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }

}  // namespace
