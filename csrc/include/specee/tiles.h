// Index arithmetic of the CUDA kernels, shared with the host that lays out their inputs. Everything here
// depends on formats and weight shapes, on logical positions or on token ids, never on how many rows there
// are: that is what makes a row's result independent of the rows beside it.
#pragma once

#include "specee/device.h"

namespace specee {

SPECEE_HD constexpr int ceil_div(int count, int size) { return (count + size - 1) / size; }

// Row-linear. A block has one tile of outputs; its warps take the units of k in turn, and their sums are
// added in the order of the warps.
inline constexpr int kTileOutputs = 16;  // weight rows of one matrix instruction
inline constexpr int kTileRows = 8;      // activation rows of one matrix instruction
inline constexpr int kTileUnit = 32;     // k of one step: two bf16 instructions, or one for integers
inline constexpr int kLinearWarps = 8;
inline constexpr int kMaxLinearRows = 64;

// Groups of kTileRows rows that a kernel is compiled for: 1, 2, 4 or 8.
SPECEE_HD constexpr int row_tiles(int rows) {
  const int needed = ceil_div(rows, kTileRows);
  return needed <= 2 ? needed : needed <= 4 ? 4 : 8;
}

// Packed weights: for each tile of outputs, for each unit of k, what each lane of a warp feeds to the matrix
// instruction, in the order of the lanes. A lane has four registers of four k each.
inline constexpr int kInt8UnitBytes = kTileOutputs * kTileUnit;
inline constexpr int kInt4UnitBytes = kInt8UnitBytes / 2;

struct PackedPlace {
  int lane;  // of the warp
  int word;  // 0 to 3: outputs 0-7 or 8-15, in the first or second half of the unit's k
  int byte;  // of the register
};

SPECEE_HD constexpr PackedPlace packed_place(int output, int k) {
  const int o = output % kTileOutputs, u = k % kTileUnit;
  return {o % 8 * 4 + u % 16 / 4, o / 8 + 2 * (u / 16), u % 4};
}

SPECEE_HD constexpr int64_t packed_unit(int output, int k, int units) {
  return static_cast<int64_t>(output / kTileOutputs) * units + k / kTileUnit;
}

// Byte of an int8 weight; `units` of k in a row.
SPECEE_HD constexpr int64_t int8_offset(int output, int k, int units) {
  const PackedPlace at = packed_place(output, k);
  return packed_unit(output, k, units) * kInt8UnitBytes + at.lane * 16 + at.word * 4 + at.byte;
}

// A lane has two words; registers 0 and 1 are the low and the high halves of the first one's bytes.
struct Nibble {
  int64_t byte;
  int shift;
};

SPECEE_HD constexpr Nibble int4_offset(int output, int k, int units) {
  const PackedPlace at = packed_place(output, k);
  return {packed_unit(output, k, units) * kInt4UnitBytes + at.lane * 8 + at.word / 2 * 4 + at.byte,
          at.word % 2 * 4};
}

// Scales (fp16), beside each other for the outputs of a tile; int4 has as many minima after them.
SPECEE_HD constexpr int64_t int8_scale_offset(int output, int k, int units) {
  return packed_unit(output, k, units) * kTileOutputs + output % kTileOutputs;
}
SPECEE_HD constexpr int64_t int4_scale_offset(int output, int k, int units) {
  return packed_unit(output, k, units) * 2 * kTileOutputs + output % kTileOutputs;
}

// Attention: a split is that many logical positions, so a position's split does not depend on the length.
inline constexpr int kAttentionSplit = 256;
inline constexpr int kAttentionHeads = 8;  // query heads of one block, all on one key head

SPECEE_HD constexpr int attention_splits(int length) { return ceil_div(length, kAttentionSplit); }

// Whether [begin, end) has positions of the split.
SPECEE_HD constexpr bool attends(int split, int begin, int end) {
  return split * kAttentionSplit < end && (split + 1) * kAttentionSplit > begin;
}

// Target tokens: the vocabulary is gone through in pieces of this many tokens.
inline constexpr int kVocabSplit = 4096;

SPECEE_HD constexpr int vocab_splits(int vocab) { return ceil_div(vocab, kVocabSplit); }

// Candidate scoring: a dot product over `hidden` is cut into chunks of 8, dealt to the lanes of this many
// warps.
inline constexpr int kScoreParts = 4;
inline constexpr int kScoreCandidates = 16;  // scored at once; the most a predictor takes
inline constexpr int kScoreThreads = 512;
inline constexpr int kMaxHidden = 16384;

// Acceptance: rows of all sequences of a call.
inline constexpr int kMaxTreeRows = 1024;

}  // namespace specee
