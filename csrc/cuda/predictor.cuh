// SpecEE's exit predictor (arXiv 2504.08850, T1) in one kernel: logits of k candidates, their softmax, its
// change from the layer checked before, and an MLP 3k -> units -> 1 over [logits, probabilities, change] with
// ReLU and sigmoid.
#pragma once

#include "scoring.cuh"

namespace specee::cuda {

struct PredictorShared {
  ScoreShared score;
  float features[3 * kScoreCandidates];
  float room[kScoreWarps];
};

// `up` (3k x units) has a feature's weights beside each other; `down` (units).
struct Mlp {
  const float *up, *up_bias, *down, *down_bias;
  int units;
};

// Lane i of the first warp has candidate i. `before`: probabilities of the layer checked before, or null.
__device__ inline void make_features(int count, const float* before, float* probabilities,
                                     PredictorShared& shared) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane >= kLanes) return;
  const bool mine = lane < count;
  const float logit = mine ? shared.score.logits[lane] : -infinity();
  const float largest = lanes_max(logit);
  const float weight = mine ? expf(logit - largest) : 0.0f;
  const float probability = weight / lanes_sum(weight);
  if (!mine) return;
  shared.features[lane] = logit;
  shared.features[count + lane] = probability;
  shared.features[2 * count + lane] = before != nullptr ? probability - before[lane] : probability;
  probabilities[lane] = probability;
}

__device__ inline float mlp(const Mlp& weights, int features, PredictorShared& shared) {
  float sum = 0.0f;
  for (int unit = static_cast<int>(threadIdx.x); unit < weights.units; unit += kScoreThreads) {
    float hidden = weights.up_bias[unit];
    for (int i = 0; i < features; ++i)
      hidden = fmaf(weights.up[i * weights.units + unit], shared.features[i], hidden);
    sum = fmaf(weights.down[unit], hidden < 0.0f ? 0.0f : hidden, sum);  // a NaN stays one
  }
  return block_sum(sum, shared.room) + weights.down_bias[0];
}

// For block r and row rows[r] (r where rows is null): logits, probabilities (blocks x count), the MLP's
// confidence and whether it is at least `threshold` (blocks). `before` and `probabilities` may be the same. A
// token that is not in the vocabulary makes confidence NaN and the decision 0: the row goes on.
extern "C" __global__ void __launch_bounds__(kScoreThreads)
    exit_predictor(const float* states, const int* rows, const float* norm, const uint16_t* weights,
                   const int* tokens, const float* before, const float* up, const float* up_bias,
                   const float* down, const float* down_bias, float* logits, float* probabilities,
                   float* confidences, int* decisions, int count, int vocab, int hidden, int units, float eps,
                   float threshold) {
  SPECEE_SHARED(PredictorShared, shared);
  const Head head = {norm, weights, vocab, hidden, eps};
  const int64_t row = rows != nullptr ? rows[blockIdx.x] : static_cast<int>(blockIdx.x);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * count;
  norm_row(head, states + row * hidden, shared.score);
  score(head, tokens + first, count, shared.score);
  make_features(count, before != nullptr ? before + first : nullptr, probabilities + first, shared);
  __syncthreads();
  const float raw = mlp({up, up_bias, down, down_bias, units}, 3 * count, shared);
  if (static_cast<int>(threadIdx.x) < count) logits[first + threadIdx.x] = shared.score.logits[threadIdx.x];
  if (threadIdx.x != 0) return;
  float known = 0.0f;  // NaN where a logit is -infinity, whatever the MLP made of it
  for (int i = 0; i < count; ++i) known += shared.score.logits[i] * 0.0f;
  const float confidence = 1.0f / (1.0f + expf(-raw)) + known;
  confidences[blockIdx.x] = confidence;
  decisions[blockIdx.x] = confidence >= threshold ? 1 : 0;
}

}  // namespace specee::cuda
