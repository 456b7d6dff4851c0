// A round's decisions on the device: which layers run, when drafting ends, and what came of it. Each is one
// block; conditions are int32 numbers (specee/cuda/program.py).
#pragma once

#include "platform.cuh"
#include "specee/given_record.h"
#include "specee/round_record.h"

namespace specee::cuda {

inline constexpr int kDecideThreads = 256;
inline constexpr int kNoDraft = -3;  // the token of a row that nobody drafted; no target is that

// A plan taken apart. runs (layers): whether a layer runs; drafts (1): whether somebody drafts. Sequence s
// has the rows s * each to (s + 1) * each: its newest committed one, then room for drafts. tokens,
// temperatures, seeds and the positions of what is drawn after them (rows); newest (sequences), each one's
// last row so far.
extern "C" __global__ void __launch_bounds__(kDecideThreads)
    begin_round(const RoundPlan* plan, RoundResult* result, int* runs, int* drafts, int* tokens,
                double* temperatures, uint64_t* seeds, int64_t* positions, int* newest, int layers,
                int each) {
  const int thread = static_cast<int>(threadIdx.x), sequences = plan->sequences;
  for (int layer = thread; layer < layers; layer += kDecideThreads)
    runs[layer] = has_layer(plan->layers, layer) ? 1 : 0;
  for (int row = thread; row < sequences * each; row += kDecideThreads) {
    const SequencePlan& own = plan->sequence[row / each];
    tokens[row] = row % each == 0 ? own.token : kNoDraft;
    temperatures[row] = own.temperature;
    seeds[row] = own.seed;
    positions[row] = own.position + row % each + 1;
  }
  if (thread < sequences) {
    newest[thread] = thread * each;
    SequenceResult& own = result->sequence[thread];
    own = {};
    own.drafting = plan->sequence[thread].drafts > 0 ? 1 : 0;
  }
  if (thread != 0) return;
  result->layers_run = 0;
  *drafts = 0;
  for (int sequence = 0; sequence < sequences; ++sequence)
    if (plan->sequence[sequence].drafts > 0) *drafts = 1;
}

// What layers have to know of rows in a chain behind the text: position p is in slot p. `which` (rows),
// numbers of rows, or null for all of them in order; the others (rows). A row that nobody drafted is token 0,
// in a slot that only it has: nothing looks at it.
extern "C" __global__ void __launch_bounds__(kDecideThreads)
    chain_rows(const RoundPlan* plan, const int* tokens, const int* which, int* row_tokens, int* positions,
               int* lengths, int* ends, int* slots, int rows, int each) {
  for (int i = static_cast<int>(threadIdx.x); i < rows; i += kDecideThreads) {
    const int row = which != nullptr ? which[i] : i;
    const int position = static_cast<int>(plan->sequence[row / each].position) + row % each;
    row_tokens[i] = tokens[row] < 0 ? 0 : tokens[row];
    positions[i] = slots[i] = position;
    lengths[i] = ends[i] = position + 1;
  }
}

// begins[i] = where the last `window` positions before ends[i] begin; both (rows).
extern "C" __global__ void __launch_bounds__(kDecideThreads)
    window_begins(const int* ends, int* begins, int rows, int window) {
  for (int i = static_cast<int>(threadIdx.x); i < rows; i += kDecideThreads)
    begins[i] = ends[i] > window ? ends[i] - window : 0;
}

// One draft of each sequence that drafts, after its newest row: drafted and confidences (sequences). A token
// below 0 is none, and ends its drafting for that.
extern "C" __global__ void __launch_bounds__(kDecideThreads)
    take_drafts(const RoundPlan* plan, RoundResult* result, const int* drafted, const float* confidences,
                int* tokens, int* newest, int* drafts, int each) {
  struct Shared {
    int drafting[kRoundSequences];
  };
  SPECEE_SHARED(Shared, shared);
  const int thread = static_cast<int>(threadIdx.x), sequences = plan->sequences;
  if (thread < sequences) {
    const SequencePlan& wanted = plan->sequence[thread];
    SequenceResult& own = result->sequence[thread];
    const bool drafts_on = own.drafting > 0;
    if (drafts_on && drafted[thread] >= 0) {
      own.drafts[own.drafted] = drafted[thread];
      own.confidences[own.drafted] = confidences[thread];
      newest[thread] = thread * each + ++own.drafted;
      tokens[newest[thread]] = drafted[thread];
    }
    // Written so that a confidence that is no number ends it, too.
    const bool sure = confidences[thread] >= wanted.floor;
    if (drafts_on && drafted[thread] < 0)
      own.drafting = -1;
    else if (drafts_on && (!sure || own.drafted >= wanted.drafts))
      own.drafting = 0;
    shared.drafting[thread] = own.drafting > 0 ? 1 : 0;
  }
  __syncthreads();
  if (thread != 0) return;
  *drafts = 0;
  for (int sequence = 0; sequence < sequences; ++sequence)
    if (shared.drafting[sequence] != 0) *drafts = 1;
}

// Drafts that are there already, behind each sequence's committed row, as far as there is room for them.
extern "C" __global__ void __launch_bounds__(kDecideThreads)
    give_drafts(const RoundPlan* plan, const GivenPlan* given, RoundResult* result, int* tokens, int* newest,
                int each) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= plan->sequences) return;
  const GivenDrafts& drafts = given->sequence[thread];
  SequenceResult& own = result->sequence[thread];
  own.drafted = drafts.count < each ? drafts.count : each - 1;
  for (int i = 0; i < own.drafted; ++i) {
    own.drafts[i] = drafts.tokens[i];
    tokens[thread * each + 1 + i] = drafts.tokens[i];
  }
  newest[thread] = thread * each + own.drafted;
}

// What came of it: accepted drafts and the token after them, as accept_drafts has left path, accepted and
// next_tokens.
extern "C" __global__ void __launch_bounds__(kDecideThreads)
    end_round(const RoundPlan* plan, RoundResult* result, const int* runs, const int* tokens, const int* path,
              const int* accepted, const int* next_tokens, int layers, int each) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < plan->sequences) {
    SequenceResult& own = result->sequence[thread];
    own.accepted = accepted[thread];
    own.count = own.accepted + 1;
    for (int i = 0; i < own.accepted; ++i) own.tokens[i] = tokens[path[thread * each + 1 + i]];
    own.tokens[own.accepted] = next_tokens[thread];
  }
  if (thread != 0) return;
  for (int layer = 0; layer < layers; ++layer) result->layers_run += runs[layer] != 0 ? 1 : 0;
}

}  // namespace specee::cuda
