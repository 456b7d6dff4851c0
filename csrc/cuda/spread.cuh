// Logits of some tokens among those of all: what a head with a part of the vocabulary gives, as others have
// it.
#pragma once

#include "numbers.cuh"

namespace specee::cuda {

inline constexpr int kSpreadThreads = 256;

// Block (part of the vocabulary, row): out[row][token] = kept[row][places[token]], minus infinity where
// places[token] is below 0. kept (rows x count); places (vocab); out (rows x vocab).
extern "C" __global__ void __launch_bounds__(kSpreadThreads)
    spread_logits(const float* kept, const int* places, float* out, int count, int vocab) {
  const int token = static_cast<int>(blockIdx.x * kSpreadThreads + threadIdx.x);
  if (token >= vocab) return;
  const int64_t row = blockIdx.y;
  const int place = places[token];
  out[row * vocab + token] = place < 0 ? -infinity() : kept[row * count + place];
}

}  // namespace specee::cuda
