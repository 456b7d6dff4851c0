// Drawing one token from logits; specee/sampling.py is the plain version of the same function.
#pragma once

#include <cstdint>
#include <vector>

namespace specee {

struct Sampling {
  double temperature = 0.0;  // 0: greedy
  int top_k = 0;             // 0: off
  double top_p = 1.0;        // 1: off
  uint64_t seed = 0;
  double min_p = 0.0;               // 0: off
  double repetition_penalty = 1.0;  // 1: off

  bool penalised() const { return repetition_penalty != 1.0; }
  // Whether the token is the largest of the logits as they are.
  bool plain_greedy() const { return temperature == 0.0 && !penalised(); }
};

// Greedy column: the lowest among those with the largest logits.
int argmax_column(const float* logits, int columns);

// Makes the logits of `seen`, distinct columns, less likely: divided by the penalty where positive,
// multiplied where negative (Keskar et al., 2019). Returns what they were, for restore().
std::vector<float> penalise(float* logits, const std::vector<int>& seen, double penalty);
void restore(float* logits, const std::vector<int>& seen, const std::vector<float>& values);

// A column and what it is chosen by.
struct Ranked {
  double score;
  int column;
};

// The `most` columns of largest logits / temperature + Gumbel noise at (seed, position, token), best first,
// the lowest among equals first, of those that top-k, then top-p, then min-p keep; fewer if they keep fewer.
// At temperature 0 of the largest logits. Logits are penalised already. `ids`: the token of each column,
// ascending; null if columns are tokens.
std::vector<Ranked> best_columns(const float* logits, int columns, const int* ids, const Sampling& sampling,
                                 uint64_t position, int most);

// The first of these: a draw from the filtered softmax (Gumbel-max trick).
int sample_column(const float* logits, int columns, const int* ids, const Sampling& sampling,
                  uint64_t position);

}  // namespace specee
