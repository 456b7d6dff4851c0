// Sixteen outputs' integer dot products by AVX-512 without VNNI: bytes to 16-bit pairs, pairs to 32 bits.
#pragma once

#include <immintrin.h>

#include "cpu/quant_avx512_common.h"

namespace {

inline constexpr int kSignedOffset = 0;
inline QBytes qload_signed(const char* p) { return qload(p); }

// start + sum over `Steps` groups of four k of w * x, exactly. Weights are at most `Limit` in magnitude,
// inputs 127: as many products as a 16-bit lane holds are added there first.
template <int Steps, int Limit, bool Signed>
inline QInts qdot(const QBytes* w, const int8_t* x, int32_t start) {
  constexpr int kTogether = 32767 / (2 * 127 * Limit) < 1 ? 1 : 32767 / (2 * 127 * Limit);
  __m512i acc = _mm512_set1_epi32(start), pairs = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int s = 0; s < Steps; ++s) {
    __m512i weights = w[s].v, inputs = qbroadcast(x + 4 * s);
    if constexpr (Signed) {  // |w| times x with w's sign
      inputs = _mm512_mask_sub_epi8(inputs, _mm512_movepi8_mask(weights), _mm512_setzero_si512(), inputs);
      weights = _mm512_abs_epi8(weights);
    }
    const __m512i product = _mm512_maddubs_epi16(weights, inputs);
    pairs = s % kTogether == 0 ? product : _mm512_add_epi16(pairs, product);
    if ((s + 1) % kTogether == 0 || s + 1 == Steps)
      acc = _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
  return {acc};
}

}  // namespace
