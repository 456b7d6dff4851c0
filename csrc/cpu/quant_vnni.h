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

// Sums of products, in 32 bits from the beginning.
template <class>
using QSum = QInts;

template <class>
inline void qgrow(QInts& sum, QBytes w0, QBytes x0, QBytes w1, QBytes x1) {
  sum.v = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum.v, w0.v, x0.v), w1.v, x1.v);
}
template <class Format>
inline QInts qfirst(int32_t start, QBytes w0, QBytes x0, QBytes w1, QBytes x1) {
  QInts sum = {_mm512_set1_epi32(start)};
  qgrow<Format>(sum, w0, x0, w1, x1);
  return sum;
}
template <class>
inline QInts qsettle(QInts sum, int32_t) {
  return sum;
}

}  // namespace
