// Rotary position embedding, rotate-half convention (Su et al. 2021; Llama 3.1's scaling of the frequencies).
#pragma once

#include <cstddef>
#include <vector>

#include "specee/config.h"

namespace specee {

class Rope {
 public:
  Rope(const RopeConfig& config, int head_dim);
  // Makes positions 0 .. positions - 1 available.
  void reserve(int positions);
  // Half a head's cosines and sines at a position.
  const float* cosine(int position) const { return cosine_.data() + static_cast<size_t>(position) * half_; }
  const float* sine(int position) const { return sine_.data() + static_cast<size_t>(position) * half_; }
  int half() const { return half_; }

 private:
  int half_;
  std::vector<float> frequency_;      // half
  std::vector<float> cosine_, sine_;  // positions x half
};

}  // namespace specee
