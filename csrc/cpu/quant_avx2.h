// Eight outputs' integer dot products by AVX2: bytes to 16-bit pairs, pairs to 32 bits.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

inline constexpr int kQuantLanes = 8;  // outputs at a time: a block is two halves
inline constexpr int kQuantRows =
    4;  // rows times two halves of sums beside four vectors of weights, in 16 registers
// Blocks that are fetched go one by one; a row whose streams hardware prefetchers follow takes four, as far
// as sums are kept in memory.
inline constexpr int quant_blocks(int rows) { return rows == 1 ? 4 : 1; }
inline constexpr bool kQuantFetchedAlone = true;
inline constexpr int kQuantFetchRows = 2;
inline int quant_fetch_rows() { return __builtin_cpu_is("intel") ? kQuantFetchRows : 1; }  // as fetch_rows()
inline constexpr int kQuantNextRows = kQuantRows + 1;                                      // never

struct QBytes {
  __m256i v;  // [8 outputs][4 k]
};
struct QPairs {
  __m256i v;  // 16-bit sums of two products
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

// Four inputs, in every lane.
using QSpread = QBytes;
inline QSpread qspread(const int8_t* x) {
  int32_t four;
  __builtin_memcpy(&four, x, sizeof four);
  return {_mm256_set1_epi32(four)};
}
// w * x, two neighbours added: exact in 16 bits, as weights are at most 128 in magnitude and inputs 127.
template <bool Signed>
inline QPairs qproduct(QBytes w, QBytes x) {
  if constexpr (Signed) return {_mm256_maddubs_epi16(_mm256_abs_epi8(w.v), _mm256_sign_epi8(x.v, w.v))};
  return {_mm256_maddubs_epi16(w.v, x.v)};
}
// sum += a, now and in its own register. Spelled as assembly because GCC otherwise knows that the order of
// additions does not matter, does them after all multiplications, and spills every product.
inline void qaccumulate(QPairs& sum, QPairs a) { __asm__("vpaddw %1, %0, %0" : "+x"(sum.v) : "x"(a.v)); }
inline void qaccumulate(QInts& sum, QInts a) { __asm__("vpaddd %1, %0, %0" : "+x"(sum.v) : "x"(a.v)); }
inline QInts qwiden(QPairs a) { return {_mm256_madd_epi16(a.v, _mm256_set1_epi16(1))}; }
inline QInts qint(int32_t value) { return {_mm256_set1_epi32(value)}; }

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
