// SpecEE's exit predictor (arXiv 2504.08850, T1) in one kernel: logits of k candidates, their softmax, its
// change from the layer checked before, and an MLP 3k -> units -> 1 over [logits, probabilities, change] with
// ReLU and sigmoid.
#pragma once

#include "exit_chances.cuh"
#include "scoring.cuh"

namespace specee::cuda {

struct PredictorShared {
  ScoreShared score;
  ChanceShared own;
};

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
  make_features(shared.score.logits, count, before != nullptr ? before + first : nullptr,
                probabilities + first, shared.own);
  __syncthreads();
  const float chance =
      chance_of({up, up_bias, down, down_bias, units}, shared.score.logits, count, shared.own);
  if (static_cast<int>(threadIdx.x) < count) logits[first + threadIdx.x] = shared.score.logits[threadIdx.x];
  if (threadIdx.x != 0) return;
  confidences[blockIdx.x] = chance;
  decisions[blockIdx.x] = chance >= threshold ? 1 : 0;
}

}  // namespace specee::cuda
