// Rows of checkpoint blocks with random weights and tame scales.
#pragma once

#include <vector>

#include "check.h"
#include "cpu/packed.h"

namespace native {

// `bound` is about the largest weight.
std::vector<uint8_t> random_blocks(specee::WeightType type, int rows, int k, float bound, Random& random);

}  // namespace native
