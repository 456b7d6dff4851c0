// Between coarse logits and exact ones: how large the logits of each block may be (coarse_head.h).
#pragma once

#include "cpu/kernels.h"

namespace {

bool screen(const specee::ScreenCall& call) {
  constexpr int L = specee::kLanes, T = specee::kBoundTerms;
  Vec odd = vzero();  // stays zero while all numbers are finite
  for (int b = 0; b < call.blocks; ++b) {
    float norms[T][L];
    for (int t = 0; t < T; ++t) vstore(norms[t], vload_bf16(call.norms + (b * T + t) * L));
    for (int r = 0; r < call.rows; ++r) {
      const float* bound = call.bounds + r * (T + 1);
      const Vec coarse = vload(call.logits + r * call.stride + b * L);
      Vec most = vadd(coarse, vset(bound[T]));
      for (int t = 0; t < T; ++t) most = vfma(vset(bound[t]), vload(norms[t]), most);
      odd = vadd(odd, vsub(most, most));
      call.most[r * call.out_stride + b] = vlargest(most);
      call.largest[r * call.out_stride + b] = vlargest(coarse);
    }
  }
  return vsum(odd) == 0.0f;
}

}  // namespace
