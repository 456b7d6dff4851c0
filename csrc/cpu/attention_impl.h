// Attention of rows over logical positions [begin, end):
//   out = sum_p softmax_p(scale * q.k_p) v_p
// Scores, weights and sums are indexed by logical position: a tree row gathers its ancestors' keys in path
// order into the very tiles a chain would use, so its result has the chain's bits. Rows that share keys and
// values go through them together; each has chains of its own, and what they go beside changes nothing.
#pragma once

#include "cpu/attention_scores_impl.h"
#include "cpu/attention_values_impl.h"

namespace {

inline constexpr float kMinusInfinity = -__builtin_inff();

// Weights of one head, zero outside [begin, end) up to whole vectors; returns their sum.
inline float soften(const AttendCall& call, const float* scores, float* weights) {
  constexpr int L = specee::kLanes;
  const Vec scale = vset(call.scale);
  const int first = call.begin / L * L;
  Vec top = vset(kMinusInfinity);
  for (int p = first; p < call.end; p += L) {
    const Vec s = vkeep(vmul(vload(scores + p), scale), call.begin - p, call.end - p, kMinusInfinity);
    vstore(weights + p, s);
    top = vmax(top, s);
  }
  const Vec shift = vset(-vlargest(top));
  Vec sum = vzero();
  for (int p = first; p < call.end; p += L) {
    const Vec e = vkeep(vexp(vadd(vload(weights + p), shift)), call.begin - p, call.end - p, 0.0f);
    vstore(weights + p, e);
    sum = vadd(sum, e);
  }
  return vsum(sum);
}

void attend_weights(const AttendCall& call) {
  for (int g = 0; g < call.heads; ++g) {
    const ptrdiff_t at = static_cast<ptrdiff_t>(g) * call.score_stride;
    call.sums[g] = soften(call, call.scores + at, call.weights + at);
  }
}

}  // namespace
