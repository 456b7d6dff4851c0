// What a round is told and what it tells: two records on the device, shared by kernels, the host's C++ and
// specee/cuda/record.py. A graph is built once; what differs from round to round is in here.
#pragma once

#include "specee/device.h"

namespace specee {

inline constexpr int kRoundLayers = 256;    // at most
inline constexpr int kRoundSequences = 64;  // at most
inline constexpr int kRoundTokens = 18;     // of a sequence in one round: drafts, and the one after them
inline constexpr int kLayerWords = kRoundLayers / 64;

struct SequencePlan {
  uint64_t seed;
  int64_t position;    // of its newest committed row
  double temperature;  // 0 is greedy
  float floor;         // a draft's confidence below which no other follows it
  int32_t token;       // of its newest committed row
  int32_t drafts;      // at most, below kRoundTokens
  int32_t unused;
};

struct RoundPlan {
  uint64_t layers[kLayerWords];  // bit l % 64 of word l / 64: layer l runs
  int32_t sequences, unused;
  SequencePlan sequence[kRoundSequences];
};

struct SequenceResult {
  int32_t drafted;   // drafts that were made
  int32_t accepted;  // and kept
  int32_t drafting;  // 1 until its last draft, then 0; below 0 where one was none (targets.cuh)
  int32_t count;     // tokens of the round
  int32_t tokens[kRoundTokens];
  int32_t drafts[kRoundTokens];  // kept or not
  float confidences[kRoundTokens];
};

struct RoundResult {
  int32_t layers_run, unused;
  SequenceResult sequence[kRoundSequences];
};

static_assert(sizeof(SequencePlan) == 40 && sizeof(SequenceResult) == 16 + 12 * kRoundTokens, "no padding");
static_assert(sizeof(RoundPlan) == 8 * kLayerWords + 8 + 40 * kRoundSequences, "no padding");
static_assert(sizeof(RoundResult) == 8 + sizeof(SequenceResult) * kRoundSequences, "no padding");

SPECEE_HD inline bool has_layer(const uint64_t* words, int layer) {
  return (words[layer / 64] >> (layer % 64) & 1) != 0;
}

}  // namespace specee
