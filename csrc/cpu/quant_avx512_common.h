// Integer lanes of AVX-512: what quant_vnni.h and quant_avx512.h share.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

inline constexpr int kQuantLanes = 16;  // outputs at a time
// A tile has twelve sums in integers and twelve in floats, beside weights and inputs of two steps; some of
// those of four blocks and more are read from memory. Each block is a stream, and prefetchers fetch more from
// more of them; two they follow too late, and with more rows than one tile they lose them all.
inline constexpr int kQuantRows = 6;
inline constexpr int quant_blocks(int rows) { return rows <= 2 ? 6 : rows <= 4 ? 12 / rows : 2; }
inline constexpr bool kQuantFetchedAlone = false;
inline constexpr int kQuantFetchRows = kQuantRows + 1;
inline constexpr int quant_fetch_rows() { return kQuantFetchRows; }
// From kQuantNextRows rows on, up to there, all of the next blocks is fetched; how many those are is up to
// the instruction set's kernels_*.cpp, as its processors differ in this.

struct QBytes {
  __m512i v;  // [16 outputs][4 k]
};
struct QInts {
  __m512i v;
};
struct QFloats {
  __m512 v;
};

inline QBytes qload(const char* p) { return {_mm512_loadu_si512(p)}; }
inline QBytes qlow(QBytes b) { return {_mm512_and_si512(b.v, _mm512_set1_epi8(0x0f))}; }
inline QBytes qhigh(QBytes b) {
  return {_mm512_and_si512(_mm512_srli_epi16(b.v, 4), _mm512_set1_epi8(0x0f))};
}
// The `Count` bits of every byte from bit `From` on, moved to bit 4, or-ed into `nibble`.
template <int From, int Count>
inline QBytes qjoin(QBytes nibble, QBytes bits) {
  const __m512i mask = _mm512_set1_epi8(static_cast<char>(((1 << Count) - 1) << 4));
  const __m512i moved = From <= 4 ? _mm512_slli_epi16(bits.v, From <= 4 ? 4 - From : 0)
                                  : _mm512_srli_epi16(bits.v, From > 4 ? From - 4 : 0);
  return {_mm512_or_si512(nibble.v, _mm512_and_si512(moved, mask))};
}
// Four inputs, in every lane.
using QSpread = QBytes;
inline QSpread qspread(const int8_t* x) {
  int32_t four;
  __builtin_memcpy(&four, x, sizeof four);
  return {_mm512_set1_epi32(four)};
}

inline QFloats qzero() { return {_mm512_setzero_ps()}; }
inline QFloats qset(float value) { return {_mm512_set1_ps(value)}; }
inline void qstore(float* p, QFloats a) { _mm512_storeu_ps(p, a.v); }
inline QFloats qfloats(QInts a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline QFloats qmul(QFloats a, QFloats b) { return {_mm512_mul_ps(a.v, b.v)}; }
// As assembly, which leaves the sum in its register: GCC moves it to where a product was and back.
inline QFloats qfma(QFloats a, QFloats b, QFloats c) {
  __asm__("vfmadd231ps %2, %1, %0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
  return c;
}
inline QFloats qload_f16(const char* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline QFloats qload_u8(const char* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline QFloats qload_i8(const char* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}

}  // namespace
