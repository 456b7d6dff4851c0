#include "kernels.h"

#include "../cuda/block.h"
#include "../cuda/device.h"
// After what stands in for CUDA.
#include "graph/set_conditions.cuh"
#include "toys.cuh"
#ifndef FAKE_TOYS_ONLY
#include "cuda/kernels.cuh"
#endif

namespace fake {

const emulation::Entries& kernels() {
  using emulation::entry;
#define ENTRY(name) {#name, entry(&specee::cuda::name)},
  static const emulation::Entries all = {
#ifndef FAKE_TOYS_ONLY
      SPECEE_CUDA_KERNELS(ENTRY)
#endif
          {"toy_mix", entry(&toys::toy_mix)},
      {"toy_compare", entry(&toys::toy_compare)},
      {"toy_store", entry(&toys::toy_store)},
      {"toy_count_down", entry(&toys::toy_count_down)}};
#undef ENTRY
  return all;
}

void set_conditions(const void* batch, unsigned threads, uint64_t seed) {
  emulation::run_grid({1, 1, 1}, threads, seed, [&] {
    specee::graph::set_conditions(*static_cast<const specee::ConditionBatch*>(batch));
  });
}

}  // namespace fake
