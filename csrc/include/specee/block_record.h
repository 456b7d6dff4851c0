// What a round is told in which a drafter block drafts, beside round_record.h: a record on the device, shared
// by kernels, the host's C++ and specee/cuda/block_record.py.
#pragma once

#include "specee/round_record.h"

namespace specee {

struct SequenceBlock {
  int32_t place;                 // in the column, of the first row that the block has not seen
  int32_t rows;                  // of the text that it has not seen, 1 or more: the newest is the last
  int32_t tokens[kRoundTokens];  // of these rows
};

struct BlockPlan {
  SequenceBlock sequence[kRoundSequences];
};

static_assert(sizeof(SequenceBlock) == 8 + 4 * kRoundTokens, "no padding");
static_assert(sizeof(BlockPlan) == sizeof(SequenceBlock) * kRoundSequences, "no padding");

}  // namespace specee
