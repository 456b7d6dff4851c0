// Sixteen floats as one AVX-512 register.
#pragma once

#include <immintrin.h>

#include "specee/numerics.h"

namespace {

struct Vec {
  __m512 v;
};

inline Vec vzero() { return {_mm512_setzero_ps()}; }
inline Vec vset(float value) { return {_mm512_set1_ps(value)}; }
// In a register, to be used several times: as an operand from memory it would be loaded each time.
inline Vec vspread(float value) {
  __m512 v = _mm512_set1_ps(value);
  __asm__("" : "+v"(v));
  return {v};
}
inline Vec vload(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void vstore(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline Vec vload_bf16(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline Vec vload_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Vec vload_bf16_even(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))};
}
inline Vec vload_bf16_odd(const uint16_t* p) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), high))};
}
inline Vec vfma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline void vaccumulate(Vec& acc, Vec a, Vec b) { acc = vfma(a, b, acc); }
inline Vec vadd(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec vsub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec vmul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec vdiv(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec vmax(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec vkeep(Vec a, int begin, int end, float other) {
  const uint32_t inside = end >= 16 ? 0xffffu : end <= 0 ? 0u : (1u << end) - 1u;
  const uint32_t below = begin >= 16 ? 0xffffu : begin <= 0 ? 0u : (1u << begin) - 1u;
  return {_mm512_mask_blend_ps(static_cast<__mmask16>(inside & ~below), _mm512_set1_ps(other), a.v)};
}
// Fixed tree: lanes i and i + 8, then i + 4, i + 2, i + 1.
inline float vsum(Vec a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float vlargest(Vec a) { return _mm512_reduce_max_ps(a.v); }
inline Vec vpow2_shifted(Vec t) {
  const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(t.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(0x3f800000)))};
}
inline void vstore_f16(uint16_t* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
// The largest of the lanes' bit patterns without their signs: NaN beats infinity beats every number.
inline uint32_t vlargest_magnitude(Vec a, Vec b) {
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  const __m512i x = _mm512_and_si512(_mm512_castps_si512(a.v), mask);
  const __m512i y = _mm512_and_si512(_mm512_castps_si512(b.v), mask);
  return static_cast<uint32_t>(_mm512_reduce_max_epi32(_mm512_max_epi32(x, y)));
}
// For t = 1.5 * 2^23 + n in every lane: n as int8, and the sum of all n.
inline int32_t vstore_shifted(int8_t* p, Vec t) {
  const __m512i n = _mm512_sub_epi32(_mm512_castps_si512(t.v), _mm512_set1_epi32(0x4b400000));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(n));
  return _mm512_reduce_add_epi32(n);
}

inline uint64_t sweep_bytes(const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  __m512i sum[8];
  for (int j = 0; j < 8; ++j) sum[j] = _mm512_setzero_si512();
  for (size_t i = 0; i < bytes; i += 512)
    for (int j = 0; j < 8; ++j) sum[j] = _mm512_add_epi64(sum[j], _mm512_loadu_si512(p + i + 64 * j));
  for (int j = 1; j < 8; ++j) sum[0] = _mm512_add_epi64(sum[0], sum[j]);
  alignas(64) uint64_t lane[8];
  _mm512_store_si512(lane, sum[0]);
  uint64_t total = 0;
  for (int j = 0; j < 8; ++j) total += lane[j];
  return total;
}

// 32 registers: at most 24 accumulators, of as many blocks as they hold: each is a stream, and prefetchers
// fetch more from more of them. Up to eight rows are one tile, as weights are then taken apart once; more are
// tiles of six by four blocks.
inline constexpr int kTileRows = 8;
inline constexpr int kManyTileRows = 6;
inline constexpr int tile_blocks(int rows) { return rows <= 2 ? 8 : rows <= 4 ? 6 : rows <= 6 ? 4 : 3; }
inline constexpr int kFetchRows = kTileRows + 1;  // streams of one tile: see fetch_impl.h
inline constexpr int fetch_rows() { return kFetchRows; }
inline constexpr bool kFewRegisters = false;
inline constexpr int kAttentionAccumulators = 24;
inline constexpr int kAttentionRowHeads = 9;

}  // namespace
