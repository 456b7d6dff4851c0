// A block of CUDA threads on the host: every thread is a fiber, and which of those that can go on does so is
// drawn from a seed, so that a missing barrier shows as a result that depends on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace emulation {

inline constexpr int kLanes = 32;
inline constexpr size_t kLargestExchange = 32;  // bytes that a lane can hand on at once

struct Index {
  unsigned x = 1, y = 1, z = 1;
};

// Of the thread that runs now.
extern Index thread_index, block_index, block_size, grid_size;

// Runs body once for each thread of each block, blocks in an order drawn from the seed too. Throws
// std::runtime_error where threads wait for others that will never come. block.x is a multiple of 32; y and z
// are 1.
void run_grid(const Index& grid, unsigned threads, uint64_t seed, const std::function<void()>& body);

// __syncthreads.
void block_barrier();

// Hands `bytes` of the calling lane to its warp; what all lanes handed over, kLargestExchange apart. Valid
// until the warp's exchange after the next.
const unsigned char* exchange(const void* value, size_t bytes);

// Shared memory of the running block: the same for all its threads, and full of NaN when it starts.
void* shared_memory(size_t bytes);

}  // namespace emulation
