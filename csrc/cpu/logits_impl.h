// What is asked of a run of logits: the largest, and the sum of their exponentials.
#pragma once

#include "cpu/kernels.h"

namespace {

float largest(const float* values, int n) {
  constexpr int L = specee::kLanes;
  int i = 0;
  float best = values[0];
  if (n >= L) {
    Vec top = vload(values);
    for (i = L; i + L <= n; i += L) top = vmax(vload(values + i), top);
    best = vlargest(top);
  }
  for (; i < n; ++i)
    if (values[i] > best) best = values[i];
  return best;
}

// Sixteen partial sums by index modulo 16, added in a fixed tree.
float sum_exp(const float* values, int n, float shift) {
  constexpr int L = specee::kLanes;
  const Vec back = vset(-shift);
  Vec sum = vzero();
  int i = 0;
  for (; i + L <= n; i += L) sum = vadd(sum, vexp(vadd(vload(values + i), back)));
  if (i < n) {
    float tail[L] = {};
    for (int j = i; j < n; ++j) tail[j - i] = values[j];
    sum = vadd(sum, vkeep(vexp(vadd(vload(tail), back)), 0, n - i, 0.0f));
  }
  return vsum(sum);
}

}  // namespace
