// The sum of memory's 64-bit words, read as fast as memory delivers: a yardstick for products.
#pragma once

#include "cpu/fetch_impl.h"

namespace {

inline constexpr int kSweepStreams = 8;
inline constexpr ptrdiff_t kSweepStep = 512;

// `bytes`: a multiple of kSweepStep.
uint64_t sweep(const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  const ptrdiff_t size = static_cast<ptrdiff_t>(bytes);
  const ptrdiff_t part = size / kSweepStreams / kSweepStep * kSweepStep;
  uint64_t sum = sweep_bytes(p + kSweepStreams * part, static_cast<size_t>(size - kSweepStreams * part));
  for (ptrdiff_t at = 0; at < part; at += kSweepStep) {
    fetch_pages<kSweepStreams, kSweepStep>(p + at, part);
    for (int i = 0; i < kSweepStreams; ++i) sum += sweep_bytes(p + i * part + at, kSweepStep);
  }
  return sum;
}

}  // namespace
