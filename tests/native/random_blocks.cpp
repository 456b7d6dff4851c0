#include "random_blocks.h"

#include <cstring>

namespace native {
namespace {

using specee::WeightType;

void put_half(uint8_t* at, float value) {
  const uint16_t half = specee::float_to_f16(value);
  std::memcpy(at, &half, sizeof half);
}

// The largest weight in units of the block's scale.
float reach(WeightType type) {
  switch (type) {
    case WeightType::q4_0:
      return 8;
    case WeightType::q4_1:
      return 15;
    case WeightType::q8_0:
      return 128;
    case WeightType::q4_k:
      return 15 * 63;
    case WeightType::q5_k:
      return 31 * 63;
    default:
      return 32 * 128;
  }
}

}  // namespace

std::vector<uint8_t> random_blocks(WeightType type, int rows, int k, float bound, Random& random) {
  const specee::QuantLayout layout = specee::quant_layout(type);
  const int blocks = rows * (specee::round_up(k, layout.block) / layout.block);
  std::vector<uint8_t> bytes(static_cast<size_t>(blocks) * static_cast<size_t>(layout.source_bytes));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.bits());
  for (int i = 0; i < blocks; ++i) {
    uint8_t* block = bytes.data() + static_cast<ptrdiff_t>(i) * layout.source_bytes;
    put_half(block + (type == WeightType::q6_k ? 208 : 0), random.uniform(-1, 1) * bound / reach(type));
    if (type == WeightType::q4_1) put_half(block + 2, random.uniform(-bound, bound));
    if (type == WeightType::q4_k || type == WeightType::q5_k)
      put_half(block + 2, random.uniform(-bound, bound) / 63);
  }
  return bytes;
}

}  // namespace native
