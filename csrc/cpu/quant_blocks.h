// Checkpoint blocks of one output, taken apart and put into the layout of kernels.h, and back.
#pragma once

#include <cstdint>

#include "specee/formats.h"

namespace specee {

// The parts of one block: 32 weights (Q4_0, Q4_1, Q8_0) or 256 (the K formats).
struct QuantBlock {
  uint16_t scale;       // fp16
  uint16_t minimum;     // fp16: what is added (Q4_1: m; Q4_K, Q5_K: -dmin); unused elsewhere
  uint8_t scales[16];   // K formats: of each 32 weights, as int8 of each 16 for Q6_K
  uint8_t minimums[8];  // Q4_K, Q5_K: of each 32 weights
  uint8_t values[256];  // the weights as stored: unsigned, int8 for Q8_0
};

// From the bytes of a checkpoint.
void unpack_source(WeightType type, const uint8_t* source, QuantBlock& values);

// A block of 32 from the bytes of a checkpoint into lane `lane` of a packed block, where both have the same
// bytes in the same order, which is so of Q4_0, Q4_1 and Q8_0; else false, and nothing is done.
bool store_source(WeightType type, const uint8_t* source, char* packed, int index, int lane);

// Into and out of lane `lane` of a packed block of 16 outputs; `index` counts checkpoint blocks.
void store_block(WeightType type, const QuantBlock& values, char* packed, int index, int lane);
void load_block(WeightType type, const char* packed, int index, int lane, QuantBlock& values);

// From a lane of one packed block to a lane of another, of the same format.
void copy_block(WeightType type, const char* source, int from, char* target, int to, int index);

// Weight j of a block in fp32, rounded operation by operation as GGUF's own dequantisation is.
float weight(WeightType type, const QuantBlock& values, int j);
// The first `count` of them.
void weights_of(WeightType type, const QuantBlock& values, int count, float* out);

}  // namespace specee
