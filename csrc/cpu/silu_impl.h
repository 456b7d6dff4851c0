// x * sigmoid(x), in place.
#pragma once

#include "cpu/kernels.h"

namespace {

void silu(float* x, int n) {
  constexpr int L = specee::kLanes;
  int i = 0;
  for (; i + L <= n; i += L) vstore(x + i, vsilu(vload(x + i)));
  if (i == n) return;
  float tail[L] = {};
  for (int j = i; j < n; ++j) tail[j - i] = x[j];
  vstore(tail, vsilu(vload(tail)));
  for (int j = i; j < n; ++j) x[j] = tail[j - i];
}

}  // namespace
