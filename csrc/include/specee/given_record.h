// What a round is told whose drafts are there already, beside round_record.h: a record on the device, shared
// by kernels, the host's C++ and specee/cuda/given_record.py.
#pragma once

#include "specee/round_record.h"

namespace specee {

struct GivenDrafts {
  int32_t count;  // below kRoundTokens
  int32_t tokens[kRoundTokens];
};

struct GivenPlan {
  GivenDrafts sequence[kRoundSequences];
};

static_assert(sizeof(GivenDrafts) == 4 + 4 * kRoundTokens, "no padding");
static_assert(sizeof(GivenPlan) == sizeof(GivenDrafts) * kRoundSequences, "no padding");

}  // namespace specee
