// How weights are stored, by the names GGUF gives them.
#pragma once

#include <cstddef>

namespace specee {

// Functions here have internal linkage: what is compiled for a newer processor must not be picked by the
// linker for an older one.

enum class WeightType { f32, bf16, f16, q4_0, q4_1, q8_0, q4_k, q5_k, q6_k };
inline constexpr int kWeightTypes = 9;

inline constexpr int kUnit = 32;  // weights of one output that share a scale, in every quantised format

// A quantised format as a checkpoint has it, and in the kernels' layout (kernels.h).
struct QuantLayout {
  int block;         // weights of one checkpoint block: 32 or 256
  int source_bytes;  // of one checkpoint block
  int header_bytes;  // of one checkpoint block of 16 outputs: its scales
  int unit_bytes;    // of one unit of 16 outputs: its weights

  constexpr int packed_bytes() const { return header_bytes + block / kUnit * unit_bytes; }
};

static constexpr QuantLayout quant_layout(WeightType type) {
  switch (type) {
    case WeightType::q4_0:
      return {32, 18, 32, 256};
    case WeightType::q4_1:
      return {32, 20, 64, 256};
    case WeightType::q8_0:
      return {32, 34, 32, 512};
    case WeightType::q4_k:
      return {256, 144, 320, 256};
    case WeightType::q5_k:
      return {256, 176, 320, 320};
    case WeightType::q6_k:
      return {256, 210, 288, 384};
    default:
      return {0, 0, 0, 0};
  }
}

static constexpr bool is_quantised(WeightType type) { return quant_layout(type).block != 0; }

static constexpr const char* weight_type_name(WeightType type) {
  constexpr const char* names[kWeightTypes] = {"F32",  "BF16", "F16",  "Q4_0", "Q4_1",
                                               "Q8_0", "Q4_K", "Q5_K", "Q6_K"};
  return names[static_cast<int>(type)];
}

}  // namespace specee
