// Activations for integer products: blocks of 32, q = round(x / scale), scale = largest magnitude / 127.
#pragma once

#include "cpu/kernels.h"

namespace {

// Below this a block counts as zero: 127 / magnitude would not be finite.
inline constexpr float kSmallestMagnitude = 1e-30f;

struct BlockScale {
  float scale, inverse;
};

// A NaN or an infinity in the block ends up in the scale, and so in every output; its integers are then zero.
inline BlockScale block_scale(uint32_t largest_bits) {
  const float largest = specee::bits_float(largest_bits);
  if (largest < kSmallestMagnitude) return {0.0f, 0.0f};
  const float scale = largest * (1.0f / 127.0f);
  return {scale, 1.0f / scale};
}

void quantise_row(const float* x, int k, specee::QuantUnit* units) {
  constexpr int L = specee::kLanes, unit = specee::kUnit;
  const Vec shift = vset(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, ties to even
  for (int u = 0; u * unit < k; ++u) {
    specee::QuantUnit& to = units[u];
    const float* from = x + u * unit;
    float tail[unit] = {};
    if ((u + 1) * unit > k) {
      for (int i = 0; u * unit + i < k; ++i) tail[i] = from[i];
      from = tail;
    }
    const Vec a = vload(from), b = vload(from + L);
    const BlockScale block = block_scale(vlargest_magnitude(a, b));
    to.scale = block.scale;
    if (!__builtin_isfinite(block.scale)) {
      __builtin_memset(to.q, 0, unit);
      to.sums[0] = to.sums[1] = 0;
      to.scaled_sum = block.scale * 0.0f;
      continue;
    }
    const Vec inverse = vset(block.inverse);
    to.sums[0] = vstore_shifted(to.q, vadd(vmul(a, inverse), shift));
    to.sums[1] = vstore_shifted(to.q + L, vadd(vmul(b, inverse), shift));
    to.scaled_sum = block.scale * static_cast<float>(to.sums[0] + to.sums[1]);
  }
}

void narrow(const float* x, int n, specee::Dtype dtype, void* out) {
  uint16_t* halves = static_cast<uint16_t*>(out);
  if (dtype == specee::Dtype::f32) {
    __builtin_memcpy(out, x, static_cast<size_t>(n) * sizeof(float));
  } else if (dtype == specee::Dtype::bf16) {
    for (int i = 0; i < n; ++i) halves[i] = specee::float_to_bf16(x[i]);
  } else {
    int i = 0;
    for (; i + specee::kLanes <= n; i += specee::kLanes) vstore_f16(halves + i, vload(x + i));
    for (; i < n; ++i) halves[i] = specee::float_to_f16(x[i]);
  }
}

}  // namespace
