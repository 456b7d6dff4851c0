// Rounds of decoding: drafts, their verification, and the text that comes of it, in one call.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/drafter.h"
#include "cpu/sampling.h"
#include "cpu/sequence.h"

namespace specee {

// What a round drafts first with a drafter's block; nothing where there is no column.
struct RoundDrafts {
  DrafterColumn* column = nullptr;
  bool branched = false;  // a tree of these limits, else a chain of limits.nodes
  TreeLimits limits{};
};

struct RoundCall {
  Sequence* sequence;
  Sampling sampling;
  std::vector<int64_t> ends;  // tokens after which the text is over
  int remaining;              // tokens that the text may still be given, at least 1
  RoundDrafts drafts;
};

struct RoundResult {
  std::vector<int64_t> tokens;     // text now
  std::vector<int> accepted;       // slots that accepted drafts were in, from the text's end down
  std::vector<float> confidences;  // of the drafts made here
  int depth = 0;                   // most of these in a row
};

struct RoundSeconds {
  double draft = 0.0, layers = 0.0, head = 0.0;
};

}  // namespace specee
