// Sixteen outputs' integer dot products by AVX-512 VNNI: one instruction for four weights of sixteen outputs.
#pragma once

#include <immintrin.h>

#include "cpu/quant_avx512_common.h"

namespace {

// Signed weights are taken as unsigned, 128 up: the instruction multiplies unsigned by signed bytes.
inline constexpr int kSignedOffset = 128;
inline QBytes qload_signed(const char* p) {
  return {_mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(static_cast<char>(0x80)))};
}

// start + sum over `Steps` groups of four k of w * x, exactly.
template <int Steps, int Limit, bool Signed>
inline QInts qdot(const QBytes* w, const int8_t* x, int32_t start) {
  __m512i acc = _mm512_set1_epi32(start);
#pragma GCC unroll 8
  for (int s = 0; s < Steps; ++s) acc = _mm512_dpbusd_epi32(acc, w[s].v, qbroadcast(x + 4 * s));
  return {acc};
}

}  // namespace
