// Which conditions a kernel sets, handed over by value: its graph keeps a copy.
#pragma once

#include "specee/device.h"

namespace specee {

inline constexpr int kConditionBatch = 64;  // a thread each

struct ConditionBatch {
  uint64_t handles[kConditionBatch];
  const int32_t* values[kConditionBatch];  // on the device
  int32_t count, unused;
};

static_assert(sizeof(ConditionBatch) == 16 * kConditionBatch + 8, "as kernels and the host lay it out");

}  // namespace specee
