// Cache compaction after acceptance: accepted drafts move to the slots behind the committed text.
#pragma once

#include "platform.cuh"

namespace specee::cuda {

inline constexpr int kCompactThreads = 128;

// Block (part of a slot, layer, sequence); a thread has 16 bytes of every slot and moves them in path order,
// so slots may overlap as long as slots ascend along a path and destinations[s], where the first draft of
// sequence s goes, is not beyond that draft's own slot. keys, values (layers x slots x chunks of 16 bytes);
// slots (rows); firsts, path and accepted as accept_drafts leaves them.
extern "C" __global__ void __launch_bounds__(kCompactThreads)
    compact_cache(uint4* keys, uint4* values, const int* slots, const int* firsts, const int* path,
                  const int* accepted, const int* destinations, int64_t layer_chunks, int slot_chunks) {
  const int chunk = static_cast<int>(blockIdx.x * kCompactThreads + threadIdx.x);
  if (chunk >= slot_chunks) return;
  const int sequence = static_cast<int>(blockIdx.z), first = firsts[sequence];
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * layer_chunks + chunk;
  for (int i = 0; i < accepted[sequence]; ++i) {
    const int64_t from = begin + static_cast<int64_t>(slots[path[first + 1 + i]]) * slot_chunks;
    const int64_t to = begin + static_cast<int64_t>(destinations[sequence] + i) * slot_chunks;
    if (from == to) continue;
    keys[to] = keys[from];
    values[to] = values[from];
  }
}

}  // namespace specee::cuda
