// Names, slots and tokens as Python has them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cpu/weights.h"
#include "specee/errors.h"
#include "specee/numerics.h"

namespace specee {

inline Dtype parse_dtype(const std::string& name) {
  if (name == "fp32") return Dtype::f32;
  if (name == "bf16") return Dtype::bf16;
  if (name == "fp16") return Dtype::f16;
  throw ConfigurationError("dtype '" + name + "' is unknown: choose fp32, bf16 or fp16");
}

inline WeightType parse_weight_type(const std::string& name) {
  std::string known;
  for (int i = 0; i < kWeightTypes; ++i) {
    const char* candidate = weight_type_name(static_cast<WeightType>(i));
    if (name == candidate) return static_cast<WeightType>(i);
    known += (i > 0 ? ", " : "") + std::string(candidate);
  }
  throw ConfigurationError("weight format '" + name + "' is unknown: choose one of " + known);
}

// Slots, layers and tokens; what no int holds cannot be one.
inline std::vector<int> narrow(const std::vector<int64_t>& values) {
  std::vector<int> narrowed;
  narrowed.reserve(values.size());
  for (const int64_t value : values) {
    if (value != static_cast<int>(value))
      throw RowError(std::to_string(value) + " is no slot, layer or token id: it does not fit 32 bits");
    narrowed.push_back(static_cast<int>(value));
  }
  return narrowed;
}

}  // namespace specee
