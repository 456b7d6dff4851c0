// Rotary embedding of one head, two roundings a product (Su et al. 2021, equation 34).
#pragma once

#include "cpu/kernels.h"

namespace {

void rotate(float* x, const float* cosine, const float* sine, int half) {
  constexpr int L = specee::kLanes;
  int i = 0;
  for (; i + L <= half; i += L) {
    const Vec a = vload(x + i), b = vload(x + half + i), c = vload(cosine + i), s = vload(sine + i);
    vstore(x + i, vsub(vmul(a, c), vmul(b, s)));
    vstore(x + half + i, vadd(vmul(b, c), vmul(a, s)));
  }
  for (; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cosine[i] - b * sine[i];
    x[i + half] = b * cosine[i] + a * sine[i];
  }
}

}  // namespace
