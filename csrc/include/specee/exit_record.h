// What a round is told in which rows may leave early, and what it tells: records beside those of
// round_record.h, shared by kernels, the host's C++ and specee/cuda/exit_record.py.
#pragma once

#include "specee/round_record.h"

namespace specee {

inline constexpr int kExitRows = 17;  // of a sequence: its newest, and those that may wait before it
inline constexpr int kExitCandidates = 16;

struct ExitSequencePlan {
  uint64_t seed;
  int64_t position;               // of its newest row
  double temperature;             // 0 is greedy
  double threshold;               // of a predictor's chance, above which the row may leave
  uint64_t checked[kLayerWords];  // bit l % 64 of word l / 64: the predictor is asked after layer l
  int32_t rows;                   // that are not complete, 1 or more: neighbours, the newest is the last
  int32_t unused;
  int32_t tokens[kExitRows];  // of these rows
  int32_t begins[kExitRows];  // how many layers each has done; never more than the one before it
  int32_t candidates[kExitCandidates];
};

struct ExitPlan {
  int32_t sequences, unused;
  ExitSequencePlan sequence[kRoundSequences];
};

struct ExitOutcome {
  int32_t layer;  // layers that the newest row had done when it left, all of them if it did not
  int32_t token;  // after it; below 0 is none (targets.cuh)
  float chance;   // that the predictor gave it, 1 after all layers
  int32_t unused;
};

struct ExitResult {
  int32_t layers_run, heads_run;
  ExitOutcome sequence[kRoundSequences];
};

static_assert(sizeof(ExitSequencePlan) == 40 + 8 * kLayerWords + 8 * kExitRows + 4 * kExitCandidates,
              "no padding");
static_assert(sizeof(ExitPlan) == 8 + sizeof(ExitSequencePlan) * kRoundSequences, "no padding");
static_assert(sizeof(ExitResult) == 8 + 16 * kRoundSequences, "no padding");

}  // namespace specee
