// Counter-based noise: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). Noise is a function of (seed, position, token id), so seeded output is the same under every
// policy, batch and order. specee/sampling.py is the same function in numpy; CUDA kernels include this
// header.
#pragma once

#include "specee/device.h"

namespace specee {

struct Philox4 {
  uint32_t word[4];
};

SPECEE_HD inline Philox4 philox4x32_10(Philox4 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter.word[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {
        {static_cast<uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(product1),
         static_cast<uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in (0, 1): never 0 or 1, so both logarithms below are finite.
SPECEE_HD inline double uniform_noise(uint64_t seed, uint64_t position, uint32_t token) {
  const Philox4 block =
      philox4x32_10({{token >> 2, static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0}},
                    static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  return (static_cast<double>(block.word[token & 3]) + 0.5) * 0x1p-32;
}

SPECEE_HD inline double gumbel_noise(uint64_t seed, uint64_t position, uint32_t token) {
  return -::log(-::log(uniform_noise(seed, position, token)));
}

// Largest value gumbel_noise can take: -log(-log(1 - 2^-33)) = 22.87...
inline constexpr double kMaxGumbel = 22.88;
// And the smallest: -log(-log(2^-33)) = -3.129...
inline constexpr double kMinGumbel = -3.13;

}  // namespace specee
