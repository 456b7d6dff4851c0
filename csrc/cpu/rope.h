// Rotary position embedding, rotate-half convention (Su et al. 2021; Llama 3.1's scaling of the frequencies).
#pragma once

#include <vector>

#include "specee/config.h"

namespace specee {

class Rope {
 public:
  Rope(const RopeConfig& config, int head_dim);
  // Makes positions 0 .. positions - 1 available.
  void reserve(int positions);
  // Rotates head_dim floats in place: (a, b) -> (a cos - b sin, b cos + a sin) for a = x[i], b = x[i + half].
  void rotate(float* x, int position) const;

 private:
  int half_;
  std::vector<float> frequency_;      // half
  std::vector<float> cosine_, sine_;  // positions x half
};

}  // namespace specee
