// How likely a token is by a row's logits: exp(l[token] - largest) / sum of exp(l - largest), sums in double.
#pragma once

#include "numbers.cuh"

namespace specee::cuda {

inline constexpr int kShareThreads = 256;

struct ShareShared {
  float largest[kShareThreads / kLanes];
  double sums[kShareThreads / kLanes];
};

// Block (row). logits (rows x vocab); tokens (rows), of the vocabulary; shares (rows). A thread adds every
// kShareThreads-th term in order, then a tree in each warp, then the warps in order.
extern "C" __global__ void __launch_bounds__(kShareThreads)
    token_shares(const float* logits, const int* tokens, float* shares, int vocab) {
  SPECEE_SHARED(ShareShared, shared);
  const float* row = logits + static_cast<int64_t>(blockIdx.x) * vocab;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kLanes;
  float largest = -infinity();
  for (int token = thread; token < vocab; token += kShareThreads) largest = fmaxf(largest, row[token]);
  largest = lanes_max(largest);
  if (thread % kLanes == 0) shared.largest[warp] = largest;
  __syncthreads();
  for (int other = 0; other < kShareThreads / kLanes; ++other)
    largest = fmaxf(largest, shared.largest[other]);
  double sum = 0.0;
  for (int token = thread; token < vocab; token += kShareThreads)
    sum += static_cast<double>(expf(row[token] - largest));
  for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  if (thread % kLanes == 0) shared.sums[warp] = sum;
  __syncthreads();
  if (thread != 0) return;
  for (int other = 1; other < kShareThreads / kLanes; ++other) sum += shared.sums[other];
  const int token = tokens[blockIdx.x];
  const bool known = token >= 0 && token < vocab;
  shares[blockIdx.x] =
      known ? static_cast<float>(static_cast<double>(expf(row[token] - largest)) / sum) : not_a_number();
}

}  // namespace specee::cuda
