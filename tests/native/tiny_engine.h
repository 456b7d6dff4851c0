// Engines of a few thousand random weights.
#pragma once

#include <memory>
#include <string>

#include "check.h"
#include "cpu/engine.h"

namespace native {

// Random shape: odd sizes, grouped heads, windows, biases, q/k norms, tied or not.
specee::ModelConfig tiny_config(Random& random);

// A format for every matrix: all fp32, all bf16, or any mixture that the shape allows.
specee::WeightTypes tiny_types(const specee::ModelConfig& config, Random& random);

// Engines made with the same config, types and seed have the same weights.
std::unique_ptr<specee::Engine> tiny_engine(const specee::ModelConfig& config,
                                            const specee::WeightTypes& types, const std::string& isa,
                                            int threads, uint64_t seed);

}  // namespace native
