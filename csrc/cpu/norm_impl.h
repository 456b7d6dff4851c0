// RMSNorm: y = x / sqrt(mean(x^2) + eps) * w.
#pragma once

#include "cpu/kernels.h"

namespace {

void rms_norm(const float* x, const float* w, float eps, int n, float* y) {
  const int whole = n / specee::kLanes * specee::kLanes;
  Vec squares = vzero();
  for (int i = 0; i < whole; i += specee::kLanes) {
    const Vec v = vload(x + i);
    squares = vfma(v, v, squares);
  }
  if (whole < n) {
    float tail[specee::kLanes] = {};
    for (int i = whole; i < n; ++i) tail[i - whole] = x[i];
    const Vec v = vload(tail);
    squares = vfma(v, v, squares);
  }
  const float scale = 1.0f / __builtin_sqrtf(vsum(squares) / static_cast<float>(n) + eps);
  const Vec scales = vset(scale);
  for (int i = 0; i < whole; i += specee::kLanes)
    vstore(y + i, vmul(vmul(vload(x + i), scales), vload(w + i)));
  for (int i = whole; i < n; ++i) y[i] = x[i] * scale * w[i];
}

}  // namespace
