// Acceptance: down each sequence's tree of drafts with the full model's tokens until no draft matches. Greedy
// and noise-coupled are the same walk: what differs is where the targets come from (targets.cuh).
#pragma once

#include "targets.cuh"

namespace specee::cuda {

inline constexpr int kAcceptThreads = 256;

struct AcceptShared {
  int tokens[kMaxTreeRows], parents[kMaxTreeRows], targets[kMaxTreeRows];
  int next[kMaxTreeRows];  // the first child that has the target token, or -1
};

// The best of a row's pieces, in order; kUnsound if one of them is.
__device__ inline int row_target(const double* scores, const int* tokens, int pieces) {
  Best best = {0.0, kNoToken};
  bool unsound = false;
  for (int piece = 0; piece < pieces; ++piece) {
    unsound = unsound || tokens[piece] == kUnsound;
    best = better(best, {scores[piece], tokens[piece]});
  }
  return unsound ? kUnsound : best.token;
}

// Block s has the rows firsts[s] to firsts[s + 1] of a sequence, at most kMaxTreeRows: first its newest
// committed row, then drafts, each after its parent. tokens (rows) that the rows hold; parents (rows),
// numbers of rows. Writes targets (rows); of each sequence its path (at firsts[s], from the committed row
// on), the number of accepted drafts, and the token after the last of them, or what stands for it where there
// is none (targets.cuh).
extern "C" __global__ void __launch_bounds__(kAcceptThreads)
    accept_drafts(const double* scores, const int* piece_tokens, const int* tokens, const int* parents,
                  const int* firsts, int* targets, int* path, int* accepted, int* next_tokens, int pieces) {
  SPECEE_SHARED(AcceptShared, shared);
  const int first = firsts[blockIdx.x], count = firsts[blockIdx.x + 1] - first;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kAcceptThreads) {
    const int64_t from = static_cast<int64_t>(first + i) * pieces;
    shared.targets[i] = row_target(scores + from, piece_tokens + from, pieces);
    shared.tokens[i] = tokens[first + i];
    shared.parents[i] = parents[first + i] - first;
    targets[first + i] = shared.targets[i];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kAcceptThreads) {
    shared.next[i] = -1;
    for (int child = count - 1; child > i; --child)
      if (shared.parents[child] == i && shared.tokens[child] == shared.targets[i]) shared.next[i] = child;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  int node = 0, drafts = 0;
  path[first] = first;
  while (shared.next[node] >= 0) {
    node = shared.next[node];
    path[first + ++drafts] = first + node;
  }
  accepted[blockIdx.x] = drafts;
  next_tokens[blockIdx.x] = shared.targets[node];
}

}  // namespace specee::cuda
