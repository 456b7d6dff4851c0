// The slots of each row's path, for attention (attention.cuh): a committed position is in the slot of its own
// number, and what follows the committed text, the row's `tail`, is where it was put.
#pragma once

#include "platform.cuh"

namespace specee::cuda {

inline constexpr int kPathThreads = 256;

// Block (part of the table, row): slots[row][p] = p < lengths[row] ? p : tails[row][p - lengths[row]], for p
// < ends[row]; the rest stays as it is. slots (rows x table); tails (rows x depth); lengths, ends (rows).
extern "C" __global__ void __launch_bounds__(kPathThreads)
    fill_paths(int* slots, const int* lengths, const int* ends, const int* tails, int depth, int table) {
  const int position = static_cast<int>(blockIdx.x * kPathThreads + threadIdx.x);
  const int64_t row = blockIdx.y;
  if (position >= table || position >= ends[row]) return;
  const int behind = position - lengths[row];
  slots[row * table + position] = behind < 0 ? position : tails[row * depth + behind];
}

}  // namespace specee::cuda
