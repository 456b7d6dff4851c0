// How fast this machine can read memory: the bound that decoding is measured against.
#pragma once

#include <cstddef>

#include "cpu/kernels.h"

namespace specee {

// Bytes per second of the best of `repeats` read-only sweeps over `bytes` bytes, shared by `threads` threads.
double measure_bandwidth(const Kernels& kernels, size_t bytes, int threads, int repeats);

}  // namespace specee
