#include "cpu/bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "cpu/memory.h"
#include "cpu/thread_pool.h"

namespace specee {

double measure_bandwidth(const Kernels& kernels, size_t bytes, int threads, int repeats) {
  ThreadPool pool(threads);
  constexpr size_t grain = 1024;
  const size_t share = bytes / static_cast<size_t>(threads) / grain * grain;
  Memory memory(share * static_cast<size_t>(threads), "the bandwidth measurement");
  std::vector<uint64_t> sums(static_cast<size_t>(threads) * 8);  // a cache line each
  double best = 0.0;
  for (int i = -1; i < repeats; ++i) {  // the first round only touches the pages
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](Team& team) {
      char* begin = memory.data() + share * static_cast<size_t>(team.index());
      if (i < 0) std::memset(begin, 1, share);
      sums[static_cast<size_t>(team.index()) * 8] += kernels.sweep(begin, share);
    });
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    if (i >= 0) best = std::max(best, static_cast<double>(memory.bytes()) / elapsed.count());
  }
  return best;
}

}  // namespace specee
