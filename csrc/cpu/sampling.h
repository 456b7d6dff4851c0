// Drawing one token from logits; specee/sampling.py is the plain version of the same function.
#pragma once

#include <cstdint>

namespace specee {

struct Sampling {
  double temperature = 0.0;  // 0: greedy
  int top_k = 0;             // 0: off
  double top_p = 1.0;        // 1: off
  uint64_t seed = 0;
};

// Greedy token: the lowest id among the largest logits.
int argmax_token(const float* logits, int vocab);

// argmax of logits / temperature + Gumbel noise at (seed, position, token) over the tokens that top-k, then
// top-p, keep: a draw from the filtered softmax (Gumbel-max trick).
int sample_token(const float* logits, int vocab, const Sampling& sampling, uint64_t position);

}  // namespace specee
