// Rounds of decoding: drafts, their verification, and the text that comes of it, in one call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/drafter.h"
#include "cpu/exit_predictors.h"
#include "cpu/ngrams.h"
#include "cpu/sampling.h"
#include "cpu/sequence.h"

namespace specee {

enum class DraftKind {
  none,
  chain,  // of a drafter's block
  tree,   // of the same
  layer,  // a chain from a shallow layer
  exits,  // a chain, each draft from the layer where a predictor is sure of it
};

// What a round drafts. Rows of the last two kinds wait at their layer for verification.
struct RoundDrafts {
  DraftKind kind = DraftKind::none;
  TreeLimits limits{};  // a chain has at most limits.nodes, none behind one under limits.stop_below
  DrafterColumn* column = nullptr;  // of all but `layer`
  std::vector<int> layers;          // the one of `layer`; of `exits` those to check, ascending
  const DraftHead* head = nullptr;  // of `layer`, null for the model's own
  float threshold = 0.0f;           // of `exits`: chance above which a row leaves
};

// What belongs to the drafts of all sequences; each may be null where nothing needs it.
struct RoundParts {
  Drafter* drafter = nullptr;
  const DraftHead* head = nullptr;  // the drafter's
  const ExitPredictors* exits = nullptr;
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

  bool ends_with(int64_t token) const { return std::find(ends.begin(), ends.end(), token) != ends.end(); }
};

struct RoundResult {
  std::vector<int64_t> tokens;     // text now
  std::vector<int> accepted;       // slots that accepted drafts were in, from the text's end down
  std::vector<float> confidences;  // of the drafts made here
  int depth = 0;                   // most of these in a row
  std::vector<int> exits;          // layers where predictors let go of them
  bool copied = false;             // they are of the text
};

struct RoundSeconds {
  double draft = 0.0, draft_head = 0.0, layers = 0.0, head = 0.0;
};

// One round of every call.
struct RoundTurn {
  std::vector<RoundResult> results;
  RoundSeconds seconds;
};

}  // namespace specee
