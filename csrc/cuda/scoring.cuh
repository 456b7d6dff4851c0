// Logits of a few candidate tokens: final RMSNorm of a row, then some rows of the LM head times it, in one
// kernel with nothing written in between. A logit's bits depend on the row and the token alone, not on the
// other candidates.
#pragma once

#include "numbers.cuh"

namespace specee::cuda {

inline constexpr int kScoreWarps = kScoreThreads / kLanes;

struct ScoreShared {
  uint4 row[kMaxHidden / 8];  // the normed row, bf16
  float room[kScoreWarps];
  float parts[kScoreCandidates * kScoreParts];
  float logits[kScoreCandidates];
};

// The final norm and the LM head (vocab x hidden, bf16); hidden is a multiple of 8.
struct Head {
  const float* norm;
  const uint16_t* weights;
  int vocab, hidden;
  float eps;
};

// row = bf16(h * norm / sqrt(mean(h^2) + eps)). Squares are added by threads, each its own in order, then by
// block_sum.
__device__ inline void norm_row(const Head& head, const float* __restrict__ h, ScoreShared& shared) {
  float squares = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < head.hidden; i += kScoreThreads)
    squares = fmaf(h[i], h[i], squares);
  const float mean = block_sum(squares, shared.room) / static_cast<float>(head.hidden);
  const float scale = 1.0f / sqrtf(mean + head.eps);
  uint32_t* pairs = reinterpret_cast<uint32_t*>(shared.row);
  for (int i = static_cast<int>(threadIdx.x); 2 * i < head.hidden; i += kScoreThreads) {
    const uint32_t low = float_to_bf16(h[2 * i] * scale * head.norm[2 * i]);
    const uint32_t high = float_to_bf16(h[2 * i + 1] * scale * head.norm[2 * i + 1]);
    pairs[i] = low | (high << 16);
  }
  __syncthreads();
}

// One part of a logit: chunks of 8 in order within a lane, then a tree over lanes.
__device__ inline float logit_part(const Head& head, int token, int part, const ScoreShared& shared) {
  const uint4* weights =
      reinterpret_cast<const uint4*>(head.weights + static_cast<int64_t>(token) * head.hidden);
  float sum = 0.0f;
#pragma unroll 4
  for (int chunk = part * kLanes + static_cast<int>(threadIdx.x % kLanes); chunk < head.hidden / 8;
       chunk += kScoreParts * kLanes) {
    float w[8], x[8];
    widen_chunk<Bf16>(weights[chunk], w);
    widen_chunk<Bf16>(shared.row[chunk], x);
    for (int i = 0; i < 8; ++i) sum = fmaf(w[i], x[i], sum);
  }
  return lanes_sum(sum);
}

// shared.logits[i] for up to kScoreCandidates tokens. A token that is not in the vocabulary has -infinity.
__device__ inline void score(const Head& head, const int* tokens, int count, ScoreShared& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  for (int unit = warp; unit < count * kScoreParts; unit += kScoreWarps) {
    const int token = tokens[unit / kScoreParts];
    if (token < 0 || token >= head.vocab) continue;
    const float part = logit_part(head, token, unit % kScoreParts, shared);
    if (threadIdx.x % kLanes == 0) shared.parts[unit] = part;
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < count) {
    const int token = tokens[threadIdx.x];
    const float* parts = shared.parts + threadIdx.x * kScoreParts;
    const bool known = token >= 0 && token < head.vocab;
    shared.logits[threadIdx.x] = known ? (parts[0] + parts[1]) + (parts[2] + parts[3]) : -infinity();
  }
  __syncthreads();
}

__device__ inline void score_list(const Head& head, const float* h, const int* tokens, int count,
                                  float* logits) {
  SPECEE_SHARED(ScoreShared, shared);
  norm_row(head, h, shared);
  for (int begin = 0; begin < count; begin += kScoreCandidates) {
    const int now = count - begin < kScoreCandidates ? count - begin : kScoreCandidates;
    score(head, tokens + begin, now, shared);
    if (static_cast<int>(threadIdx.x) < now) logits[begin + threadIdx.x] = shared.logits[threadIdx.x];
  }
}

// logits (rows x count) of tokens (rows x count); block r has states[rows[r]], or states[r] where rows is
// null.
extern "C" __global__ void __launch_bounds__(kScoreThreads)
    score_candidates(const float* states, const int* rows, const float* norm, const uint16_t* weights,
                     const int* tokens, float* logits, int count, int vocab, int hidden, float eps) {
  const int64_t row = rows != nullptr ? rows[blockIdx.x] : static_cast<int>(blockIdx.x);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * count;
  score_list({norm, weights, vocab, hidden, eps}, states + row * hidden, tokens + first, count,
             logits + first);
}

// The same where row r has candidates offsets[r] to offsets[r + 1], as the nodes of a token tree do.
extern "C" __global__ void __launch_bounds__(kScoreThreads)
    score_grouped(const float* states, const int* rows, const float* norm, const uint16_t* weights,
                  const int* tokens, const int* offsets, float* logits, int vocab, int hidden, float eps) {
  const int64_t row = rows != nullptr ? rows[blockIdx.x] : static_cast<int>(blockIdx.x);
  const int first = offsets[blockIdx.x], count = offsets[blockIdx.x + 1] - first;
  score_list({norm, weights, vocab, hidden, eps}, states + row * hidden, tokens + first, count,
             logits + first);
}

}  // namespace specee::cuda
