#include "cpu/rope.h"

#include <cmath>

namespace specee {
namespace {

// Frequencies and angles are rounded to fp32 at each step because that is how checkpoints were trained and
// how transformers computes them.
float scaled_frequency(const RopeConfig& config, float frequency) {
  if (config.scaling == RopeScaling::linear) return frequency / static_cast<float>(config.factor);
  if (config.scaling == RopeScaling::none) return frequency;
  const double wavelength = 2.0 * 3.14159265358979323846 / frequency;
  const double longest = config.original_max_position / config.low_freq_factor;
  const double shortest = config.original_max_position / config.high_freq_factor;
  if (wavelength < shortest) return frequency;
  const float slow = frequency / static_cast<float>(config.factor);
  if (wavelength > longest) return slow;
  const float blend =
      static_cast<float>((config.original_max_position / wavelength - config.low_freq_factor) /
                         (config.high_freq_factor - config.low_freq_factor));
  return (1.0f - blend) * slow + blend * frequency;
}

}  // namespace

Rope::Rope(const RopeConfig& config, int head_dim) : half_(head_dim / 2) {
  for (int i = 0; i < half_; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float frequency = 1.0f / std::pow(static_cast<float>(config.theta), exponent);
    frequency_.push_back(scaled_frequency(config, frequency));
  }
}

void Rope::reserve(int positions) {
  for (int p = static_cast<int>(cosine_.size()) / half_; p < positions; ++p)
    for (const float frequency : frequency_) {
      const double angle = static_cast<float>(p) * frequency;
      cosine_.push_back(static_cast<float>(std::cos(angle)));
      sine_.push_back(static_cast<float>(std::sin(angle)));
    }
}

}  // namespace specee
