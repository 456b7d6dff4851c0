// Sixteen outputs' integer dot products by AVX-512 without VNNI: bytes to 16-bit pairs, pairs to 32 bits.
#pragma once

#include <immintrin.h>

#include "cpu/quant_avx512_common.h"

namespace {

struct QPairs {
  __m512i v;  // 16-bit sums of two products
};

inline constexpr int kSignedOffset = 0;
inline QBytes qload_signed(const char* p) { return qload(p); }

// w * x, two neighbours added: exact in 16 bits, as weights are at most 128 in magnitude and inputs 127.
template <bool Signed>
inline QPairs qproduct(QBytes w, QBytes x) {
  if constexpr (Signed) {  // |w| times x with w's sign
    x.v = _mm512_mask_sub_epi8(x.v, _mm512_movepi8_mask(w.v), _mm512_setzero_si512(), x.v);
    w.v = _mm512_abs_epi8(w.v);
  }
  return {_mm512_maddubs_epi16(w.v, x.v)};
}
// Assembly for the reason that quant_avx2.h gives.
inline void qaccumulate(QPairs& sum, QPairs a) { __asm__("vpaddw %1, %0, %0" : "+v"(sum.v) : "v"(a.v)); }
inline void qaccumulate(QInts& sum, QInts a) { __asm__("vpaddd %1, %0, %0" : "+v"(sum.v) : "v"(a.v)); }
inline QInts qwiden(QPairs a) { return {_mm512_madd_epi16(a.v, _mm512_set1_epi16(1))}; }
inline QInts qint(int32_t value) { return {_mm512_set1_epi32(value)}; }

}  // namespace
