// The full model's token after each row: the argmax of logits, or of logits / temperature plus Gumbel noise
// that depends on seed, position and token id alone (specee/philox.h), in double precision. Ties go to the
// lower id.
#pragma once

#include "numbers.cuh"
#include "specee/philox.h"

namespace specee::cuda {

inline constexpr int kTargetThreads = 256;
inline constexpr int kNoToken = -1;  // every logit is -infinity
inline constexpr int kUnsound = -2;  // a logit is NaN

// The best token so far; kNoToken while there is none.
struct Best {
  double score;
  int token;
};

__device__ inline Best better(const Best& a, const Best& b) {
  if (b.token == kNoToken) return a;
  if (a.token == kNoToken || b.score > a.score) return b;
  return b.score == a.score && b.token < a.token ? b : a;
}

struct TargetShared {
  double largest[kTargetThreads / kLanes];
  int unsound[kTargetThreads / kLanes];
  Best best[kTargetThreads / kLanes];
};

// A piece of a row's logits as a thread sees it: every kTargetThreads-th token from `first`.
struct Piece {
  const float* logits;
  int first, end;
  double temperature;
  __device__ double score(int token) const {
    const double logit = static_cast<double>(logits[token]);
    return temperature == 0.0 ? logit : logit / temperature;
  }
};

// The largest score of the piece, to all threads; NaN if one of them is.
__device__ inline double piece_largest(const Piece& piece, TargetShared& shared) {
  double largest = -infinity();
  int unsound = 0;
  for (int token = piece.first; token < piece.end; token += kTargetThreads) {
    const double score = piece.score(token);
    unsound |= score != score ? 1 : 0;
    if (score > largest) largest = score;
  }
  for (int step = kLanes / 2; step > 0; step /= 2) {
    const double other = __shfl_xor_sync(kAllLanes, largest, step);
    if (other > largest) largest = other;
    unsound |= __shfl_xor_sync(kAllLanes, unsound, step);
  }
  if (threadIdx.x % kLanes == 0) {
    shared.largest[threadIdx.x / kLanes] = largest;
    shared.unsound[threadIdx.x / kLanes] = unsound;
  }
  __syncthreads();
  for (int warp = 0; warp < kTargetThreads / kLanes; ++warp) {
    if (shared.largest[warp] > largest) largest = shared.largest[warp];
    unsound |= shared.unsound[warp];
  }
  return unsound != 0 ? static_cast<double>(not_a_number()) : largest;
}

// Block (piece, row). scores and tokens (rows x pieces) of each piece's best, kNoToken or kUnsound.
// temperatures (rows): 0 is greedy.
extern "C" __global__ void __launch_bounds__(kTargetThreads)
    target_pieces(const float* logits, const double* temperatures, const uint64_t* seeds,
                  const int64_t* positions, double* scores, int* tokens, int vocab, int pieces) {
  SPECEE_SHARED(TargetShared, shared);
  const int row = static_cast<int>(blockIdx.y), begin = static_cast<int>(blockIdx.x) * kVocabSplit;
  const int end = begin + kVocabSplit < vocab ? begin + kVocabSplit : vocab;
  const Piece piece = {logits + static_cast<int64_t>(row) * vocab, begin + static_cast<int>(threadIdx.x), end,
                       temperatures[row]};
  const double largest = piece_largest(piece, shared);
  // Most tokens are too far behind for any noise to bring them to the front.
  const double floor = piece.temperature == 0.0 ? largest : largest - (kMaxGumbel - kMinGumbel);
  Best best = {0.0, kNoToken};
  for (int token = piece.first; token < end; token += kTargetThreads) {
    double score = piece.score(token);
    if (!(score >= floor) || score == -infinity()) continue;
    if (piece.temperature != 0.0)
      score += gumbel_noise(seeds[row], positions[row], static_cast<uint32_t>(token));
    best = better(best, {score, token});
  }
  for (int step = kLanes / 2; step > 0; step /= 2) {
    const double score = __shfl_xor_sync(kAllLanes, best.score, step);
    best = better(best, {score, __shfl_xor_sync(kAllLanes, best.token, step)});
  }
  if (threadIdx.x % kLanes == 0) shared.best[threadIdx.x / kLanes] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kTargetThreads / kLanes; ++warp) best = better(best, shared.best[warp]);
  scores[row * pieces + blockIdx.x] = best.score;
  tokens[row * pieces + blockIdx.x] = largest == largest ? best.token : kUnsound;
}

}  // namespace specee::cuda
