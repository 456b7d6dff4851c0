// What rows of a drafter block have to know in a decode round: those of the text that the block has not seen,
// and each sequence's newest one, drafted or not. A column begins at some position of its text: a row's place
// in it is its slot, and what its angles go by.
#pragma once

#include "platform.cuh"
#include "specee/block_record.h"
#include "specee/round_record.h"

namespace specee::cuda {

inline constexpr int kBlockThreads = 256;

// Rows of text, `each` of every sequence, whose keys and values are stored: row i of a sequence is the i-th
// that its block has not seen. The newest committed one is not stored here, nor are the rows behind it, which
// are like it. remembers (1): whether there is a row before a newest one. The others (rows).
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    block_text_rows(const BlockPlan* plan, int* tokens, int* places, int* slots, int* remembers, int rows,
                    int each) {
  for (int i = static_cast<int>(threadIdx.x); i < rows; i += kBlockThreads) {
    const SequenceBlock& own = plan->sequence[i / each];
    const int last = own.rows - 1, at = i % each < last ? i % each : last;
    tokens[i] = own.tokens[at];
    places[i] = own.place + at;
    slots[i] = at < last ? places[i] : -1;
  }
  if (threadIdx.x != 0) return;
  *remembers = 0;
  for (int sequence = 0; sequence < rows / each; ++sequence)
    if (plan->sequence[sequence].rows > 1) *remembers = 1;
}

// Each sequence's newest row, of which newest (sequences) has the number: a sequence has `each` of them, the
// first one committed. tokens (sequences * each); the others (sequences): a row attends to all before it.
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    block_newest_rows(const BlockPlan* plan, const int* tokens, const int* newest, int* row_tokens,
                      int* places, int* lengths, int* ends, int* slots, int sequences, int each) {
  for (int i = static_cast<int>(threadIdx.x); i < sequences; i += kBlockThreads) {
    const SequenceBlock& own = plan->sequence[i];
    const int row = newest[i], place = own.place + own.rows - 1 + row % each;
    row_tokens[i] = tokens[row] < 0 ? 0 : tokens[row];
    places[i] = slots[i] = place;
    lengths[i] = ends[i] = place + 1;
  }
}

// How tokens are drawn after rows `which` (rows) of all that there are.
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    draws_of(const int* which, const double* temperatures, const uint64_t* seeds, const int64_t* positions,
             double* own_temperatures, uint64_t* own_seeds, int64_t* own_positions, int rows) {
  for (int i = static_cast<int>(threadIdx.x); i < rows; i += kBlockThreads) {
    const int row = which[i];
    own_temperatures[i] = temperatures[row];
    own_seeds[i] = seeds[row];
    own_positions[i] = positions[row];
  }
}

}  // namespace specee::cuda
