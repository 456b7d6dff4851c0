// Eight outputs' integer dot products by AVX2: bytes to 16-bit pairs, pairs to 32 bits.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

inline constexpr int kQuantLanes = 8;  // outputs at a time: a block is two halves
inline constexpr int kQuantRows = 4;   // rows beside the eight vectors of a unit's weights, in 16 registers

struct QBytes {
  __m256i v;  // [8 outputs][4 k]
};
struct QInts {
  __m256i v;
};
struct QFloats {
  __m256 v;
};

inline constexpr int kSignedOffset = 0;
inline QBytes qload(const char* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline QBytes qload_signed(const char* p) { return qload(p); }
inline QBytes qlow(QBytes b) { return {_mm256_and_si256(b.v, _mm256_set1_epi8(0x0f))}; }
inline QBytes qhigh(QBytes b) {
  return {_mm256_and_si256(_mm256_srli_epi16(b.v, 4), _mm256_set1_epi8(0x0f))};
}
// The `Count` bits of every byte from bit `From` on, moved to bit 4, or-ed into `nibble`.
template <int From, int Count>
inline QBytes qjoin(QBytes nibble, QBytes bits) {
  const __m256i mask = _mm256_set1_epi8(static_cast<char>(((1 << Count) - 1) << 4));
  const __m256i moved = From <= 4 ? _mm256_slli_epi16(bits.v, From <= 4 ? 4 - From : 0)
                                  : _mm256_srli_epi16(bits.v, From > 4 ? From - 4 : 0);
  return {_mm256_or_si256(nibble.v, _mm256_and_si256(moved, mask))};
}

// start + sum over `Steps` groups of four k of w * x, exactly. Weights are at most `Limit` in magnitude,
// inputs 127: as many products as a 16-bit lane holds are added there first.
template <int Steps, int Limit, bool Signed>
inline QInts qdot(const QBytes* w, const int8_t* x, int32_t start) {
  constexpr int kTogether = 32767 / (2 * 127 * Limit) < 1 ? 1 : 32767 / (2 * 127 * Limit);
  __m256i acc = _mm256_set1_epi32(start), pairs = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int s = 0; s < Steps; ++s) {
    int32_t four;
    __builtin_memcpy(&four, x + 4 * s, sizeof four);
    __m256i weights = w[s].v, inputs = _mm256_set1_epi32(four);
    if constexpr (Signed) {  // |w| times x with w's sign
      inputs = _mm256_sign_epi8(inputs, weights);
      weights = _mm256_abs_epi8(weights);
    }
    const __m256i product = _mm256_maddubs_epi16(weights, inputs);
    pairs = s % kTogether == 0 ? product : _mm256_add_epi16(pairs, product);
    if ((s + 1) % kTogether == 0 || s + 1 == Steps)
      acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  return {acc};
}

inline QFloats qzero() { return {_mm256_setzero_ps()}; }
inline QFloats qset(float value) { return {_mm256_set1_ps(value)}; }
inline void qstore(float* p, QFloats a) { _mm256_storeu_ps(p, a.v); }
inline QFloats qfloats(QInts a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline QFloats qmul(QFloats a, QFloats b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline QFloats qfma(QFloats a, QFloats b, QFloats c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline QFloats qload_f16(const char* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline QFloats qload_u8(const char* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
inline QFloats qload_i8(const char* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}

}  // namespace
