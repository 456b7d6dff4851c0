// Sixteen outputs' integer dot products in plain C++.
#pragma once

#include <cstdint>

#include "specee/numerics.h"

namespace {

inline constexpr int kQuantLanes = 16;
inline constexpr int kQuantRows = 4;
inline constexpr int quant_blocks(int) { return 1; }
inline constexpr bool kQuantFetchedAlone = false;
inline constexpr int kQuantFetchRows = 5;
inline constexpr int quant_fetch_rows() { return kQuantFetchRows; }
inline constexpr int kQuantNextRows = kQuantRows + 1;  // never

struct QBytes {
  uint8_t v[64];  // [16 outputs][4 k]
};
struct QInts {
  int32_t v[16];
};
struct QFloats {
  float v[16];
};

inline constexpr int kSignedOffset = 0;
inline QBytes qload(const char* p) {
  QBytes b;
  __builtin_memcpy(b.v, p, sizeof b.v);
  return b;
}
inline QBytes qload_signed(const char* p) { return qload(p); }
inline QBytes qlow(QBytes b) {
  for (int i = 0; i < 64; ++i) b.v[i] = static_cast<uint8_t>(b.v[i] & 0x0f);
  return b;
}
inline QBytes qhigh(QBytes b) {
  for (int i = 0; i < 64; ++i) b.v[i] = static_cast<uint8_t>(b.v[i] >> 4);
  return b;
}
// The `Count` bits of every byte from bit `From` on, moved to bit 4, or-ed into `nibble`.
template <int From, int Count>
inline QBytes qjoin(QBytes nibble, const QBytes& bits) {
  for (int i = 0; i < 64; ++i)
    nibble.v[i] = static_cast<uint8_t>(nibble.v[i] | ((bits.v[i] >> From) & ((1 << Count) - 1)) << 4);
  return nibble;
}

// Four inputs.
struct QSpread {
  int8_t v[4];
};
inline QSpread qspread(const int8_t* x) { return {{x[0], x[1], x[2], x[3]}}; }

// Sums of products, in 32 bits from the beginning.
template <class>
using QSum = QInts;

// One loop for both steps, which GCC makes vectors of.
template <class Format>
inline void qgrow(QInts& sum, const QBytes& w0, const QSpread& x0, const QBytes& w1, const QSpread& x1) {
  const auto weight = [](uint8_t byte) {
    return Format::kSigned ? static_cast<int8_t>(byte) : static_cast<int32_t>(byte);
  };
  for (int i = 0; i < 16; ++i) {
    int32_t own = 0;
    for (int j = 0; j < 4; ++j) own += weight(w0.v[4 * i + j]) * x0.v[j];
    for (int j = 0; j < 4; ++j) own += weight(w1.v[4 * i + j]) * x1.v[j];
    sum.v[i] += own;
  }
}
template <class Format>
inline QInts qfirst(int32_t start, const QBytes& w0, const QSpread& x0, const QBytes& w1, const QSpread& x1) {
  QInts sum;
  for (int i = 0; i < 16; ++i) sum.v[i] = start;
  qgrow<Format>(sum, w0, x0, w1, x1);
  return sum;
}
template <class>
inline QInts qsettle(const QInts& sum, int32_t) {
  return sum;
}

#define SPECEE_EACH for (int i = 0; i < 16; ++i)
inline QFloats qset(float value) {
  QFloats r;
  SPECEE_EACH r.v[i] = value;
  return r;
}
inline QFloats qzero() { return qset(0.0f); }
inline void qstore(float* p, const QFloats& a) { SPECEE_EACH p[i] = a.v[i]; }
inline QFloats qfloats(const QInts& a) {
  QFloats r;
  SPECEE_EACH r.v[i] = static_cast<float>(a.v[i]);
  return r;
}
inline QFloats qmul(const QFloats& a, const QFloats& b) {
  QFloats r;
  SPECEE_EACH r.v[i] = a.v[i] * b.v[i];
  return r;
}
// Fused where the hardware fuses, as in vec_portable.h.
inline QFloats qfma(const QFloats& a, const QFloats& b, const QFloats& c) {
  QFloats r;
#ifdef __FP_FAST_FMAF
  SPECEE_EACH r.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
#else
  SPECEE_EACH r.v[i] = a.v[i] * b.v[i] + c.v[i];
#endif
  return r;
}
inline QFloats qload_f16(const char* p) {
  QFloats r;
  SPECEE_EACH {
    uint16_t half;
    __builtin_memcpy(&half, p + 2 * i, sizeof half);
    r.v[i] = specee::f16_to_float(half);
  }
  return r;
}
inline QFloats qload_u8(const char* p) {
  QFloats r;
  SPECEE_EACH r.v[i] = static_cast<float>(static_cast<uint8_t>(p[i]));
  return r;
}
inline QFloats qload_i8(const char* p) {
  QFloats r;
  SPECEE_EACH r.v[i] = static_cast<float>(static_cast<int8_t>(p[i]));
  return r;
}
#undef SPECEE_EACH

}  // namespace
