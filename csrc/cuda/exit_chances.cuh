// What SpecEE's predictor says of some rows (arXiv 2504.08850, T1), by logits of k candidates: their softmax,
// its change from the layer checked before, and an MLP 3k -> units -> 1 over [logits, probabilities, change]
// with ReLU and sigmoid. Sums run in one order, whatever rows there are.
#pragma once

#include "numbers.cuh"

namespace specee::cuda {

struct ChanceShared {
  float features[3 * kScoreCandidates];
  float room[kScoreThreads / kLanes];
};

// `up` (3k x units) has a feature's weights beside each other; `down` (units).
struct Mlp {
  const float *up, *up_bias, *down, *down_bias;
  int units;
};

// Lane i of the first warp has candidate i. `before`: probabilities of the layer checked before, or null; it
// may be `probabilities`.
__device__ inline void make_features(const float* logits, int count, const float* before,
                                     float* probabilities, ChanceShared& shared) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane >= kLanes) return;
  const bool mine = lane < count;
  const float logit = mine ? logits[lane] : -infinity();
  const float largest = lanes_max(logit);
  const float weight = mine ? expf(logit - largest) : 0.0f;
  const float probability = weight / lanes_sum(weight);
  if (!mine) return;
  shared.features[lane] = logit;
  shared.features[count + lane] = probability;
  shared.features[2 * count + lane] = before != nullptr ? probability - before[lane] : probability;
  probabilities[lane] = probability;
}

// To all threads; NaN where a logit is infinite, whatever the MLP makes of it.
__device__ inline float chance_of(const Mlp& weights, const float* logits, int count, ChanceShared& shared) {
  float sum = 0.0f;
  for (int unit = static_cast<int>(threadIdx.x); unit < weights.units; unit += kScoreThreads) {
    float hidden = weights.up_bias[unit];
    for (int i = 0; i < 3 * count; ++i)
      hidden = fmaf(weights.up[i * weights.units + unit], shared.features[i], hidden);
    sum = fmaf(weights.down[unit], hidden < 0.0f ? 0.0f : hidden, sum);  // a NaN stays one
  }
  const float raw = block_sum(sum, shared.room) + weights.down_bias[0];
  float known = 0.0f;
  for (int i = 0; i < count; ++i) known += logits[i] * 0.0f;
  return 1.0f / (1.0f + expf(-raw)) + known;
}

// Block (row). logits and probabilities (rows x count), which are of the layer checked before, zeros at the
// first one, and then of this one; chances (rows). `asked` (rows) or null: rows where it is 0 are left alone.
extern "C" __global__ void __launch_bounds__(kScoreThreads)
    exit_chances(const float* logits, const int* asked, const float* up, const float* up_bias,
                 const float* down, const float* down_bias, float* probabilities, float* chances, int count,
                 int units) {
  SPECEE_SHARED(ChanceShared, shared);
  if (asked != nullptr && asked[blockIdx.x] == 0) return;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * count;
  make_features(logits + first, count, probabilities + first, probabilities + first, shared);
  __syncthreads();
  const float chance = chance_of({up, up_bias, down, down_bias, units}, logits + first, count, shared);
  if (threadIdx.x == 0) chances[blockIdx.x] = chance;
}

}  // namespace specee::cuda
