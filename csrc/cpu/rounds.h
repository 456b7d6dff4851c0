// Rounds of decoding: drafts, their verification, and the text that comes of it, in one call.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/drafter.h"
#include "cpu/ngrams.h"
#include "cpu/sampling.h"
#include "cpu/sequence.h"

namespace specee {

// What a round drafts with a drafter's block; nothing where there is no column.
struct RoundDrafts {
  DrafterColumn* column = nullptr;
  bool branched = false;  // a tree of these limits, else a chain of limits.nodes
  TreeLimits limits{};
};

// What the text itself offers, which comes before all else; nothing where there is no index.
struct RoundCopies {
  NgramIndex* index = nullptr;
  int length = 0;
  float stop_below = 0.0f;
};

struct RoundCall {
  Sequence* sequence;
  Sampling sampling;
  std::vector<int64_t> ends;  // tokens after which the text is over
  int remaining;              // tokens that the text may still be given, at least 1
  RoundDrafts drafts;
  RoundCopies copies{};
};

struct RoundResult {
  std::vector<int64_t> tokens;     // text now
  std::vector<int> accepted;       // slots that accepted drafts were in, from the text's end down
  std::vector<float> confidences;  // of the drafts made here
  int depth = 0;                   // most of these in a row
  bool copied = false;             // they are of the text
};

struct RoundSeconds {
  double draft = 0.0, layers = 0.0, head = 0.0;
};

// One round of every call.
struct RoundTurn {
  std::vector<RoundResult> results;
  RoundSeconds seconds;
};

}  // namespace specee
