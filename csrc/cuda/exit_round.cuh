// A round in which rows may leave early: SpecEE (arXiv 2504.08850), with keys and values of all layers. Each
// sequence has as many rows as all others; its newest is the last, rows that wait at some layer are before
// it, and what is before them is no row. A row takes part from the layer on where it waits: until then it
// stores nothing, and attends to position 0 alone. Decisions are one block.
#pragma once

#include "residual.cuh"
#include "round.cuh"
#include "specee/exit_record.h"

namespace specee::cuda {

enum ExitFlag { kHeadWanted = 0, kConfirms = 1 };  // whether the head runs at the end, and at a checked layer
inline constexpr int kNoRow = -1;                  // the layer where a row begins that there is not

// A row's part of the plan; its token is 0 where there is none.
struct ExitRow {
  int token, position, begin;
};

__device__ inline ExitRow exit_row(const ExitPlan* plan, int row, int each) {
  const ExitSequencePlan& own = plan->sequence[row / each];
  const int i = own.rows - each + row % each;
  if (i < 0) return {0, 0, kNoRow};
  return {own.tokens[i], static_cast<int>(own.position) - own.rows + 1 + i, own.begins[i]};
}

// A plan taken apart. runs, checks, enters (layers): whether a layer runs, whether somebody is asked about
// after it, whether rows wait there; asked (layers x sequences). Of rows, as layers need them: tokens,
// positions, lengths and ends of paths, slots; begins, and reach, the ends that they have once they take
// part. (sequences): temperatures, seeds and positions of draws, left, the layers that a row had done when it
// left, and candidates and probabilities (x count). One block a multiprocessor is all there is: left to
// itself, ptxas spills registers to have more.
extern "C" __global__ void __launch_bounds__(kDecideThreads, 1)
    begin_exits(const ExitPlan* plan, ExitResult* result, int* runs, int* checks, int* enters, int* asked,
                int* flags, int* tokens, int* positions, int* lengths, int* ends, int* slots, int* begins,
                int* reach, double* temperatures, uint64_t* seeds, int64_t* draws, int* left, int* candidates,
                float* probabilities, int layers, int each, int count) {
  const int thread = static_cast<int>(threadIdx.x), sequences = plan->sequences;
  for (int layer = thread; layer < layers; layer += kDecideThreads) {
    runs[layer] = 1;
    checks[layer] = enters[layer] = 0;
    for (int sequence = 0; sequence < sequences; ++sequence) {
      const int wanted = has_layer(plan->sequence[sequence].checked, layer) ? 1 : 0;
      asked[layer * sequences + sequence] = wanted;
      if (wanted != 0) checks[layer] = 1;
    }
  }
  __syncthreads();
  for (int row = thread; row < sequences * each; row += kDecideThreads) {
    const ExitRow own = exit_row(plan, row, each);
    const bool there = own.begin == 0;
    tokens[row] = own.token;
    positions[row] = own.position;
    begins[row] = own.begin;
    lengths[row] = reach[row] = own.position + 1;
    ends[row] = there ? own.position + 1 : 1;
    slots[row] = there ? own.position : -1;
    if (own.begin > 0) enters[own.begin] = 1;
  }
  for (int i = thread; i < sequences * count; i += kDecideThreads) {
    candidates[i] = plan->sequence[i / count].candidates[i % count];
    probabilities[i] = 0.0f;
  }
  if (thread < sequences) {
    const ExitSequencePlan& own = plan->sequence[thread];
    temperatures[thread] = own.temperature;
    seeds[thread] = own.seed;
    draws[thread] = own.position + 1;
    left[thread] = 0;
    result->sequence[thread] = {};
  }
  if (thread != 0) return;
  result->layers_run = result->heads_run = 0;
  flags[kHeadWanted] = 1;
  flags[kConfirms] = 0;
}

// Block (part of a row, row): rows that wait before `layer` take part from here on, with the states that were
// kept of them. x, states (rows x hidden); begins, positions, slots, ends (rows).
extern "C" __global__ void __launch_bounds__(kRowThreads)
    enter_rows(float* x, const float* states, const int* begins, const int* positions, int* slots, int* ends,
               int hidden, int layer) {
  const int64_t row = blockIdx.y;
  const int i = row_number();
  if (begins[row] != layer) return;
  if (i < hidden) x[row * hidden + i] = states[row * hidden + i];
  if (i != 0) return;
  slots[row] = positions[row];
  ends[row] = positions[row] + 1;
}

// Who would leave after a layer where `asked` (sequences) are checked: chances (sequences) are the
// predictor's, and one that is no number is above no threshold. willing (sequences).
extern "C" __global__ void __launch_bounds__(kDecideThreads)
    willing_exits(const ExitPlan* plan, const int* asked, const float* chances, const int* left, int* willing,
                  int* flags) {
  struct Shared {
    int willing[kRoundSequences];
  };
  SPECEE_SHARED(Shared, shared);
  const int thread = static_cast<int>(threadIdx.x), sequences = plan->sequences;
  if (thread < sequences) {
    const bool there = asked[thread] != 0 && left[thread] == 0;
    const bool sure = there && static_cast<double>(chances[thread]) > plan->sequence[thread].threshold;
    willing[thread] = shared.willing[thread] = sure ? 1 : 0;
  }
  __syncthreads();
  if (thread != 0) return;
  flags[kConfirms] = 0;
  for (int sequence = 0; sequence < sequences; ++sequence)
    if (shared.willing[sequence] != 0) flags[kConfirms] = 1;
}

// After the head behind `layer`: who is willing leaves, if the token that the whole head gives (targets,
// sequences) is among the candidates (sequences x count), or is none. With the last of them gone no later
// layer runs, and no head.
extern "C" __global__ void __launch_bounds__(kDecideThreads)
    confirm_exits(const ExitPlan* plan, ExitResult* result, const int* willing, const float* chances,
                  const int* targets, const int* candidates, int* left, int* runs, int* checks, int* flags,
                  int layer, int layers, int count) {
  struct Shared {
    int left[kRoundSequences];
  };
  SPECEE_SHARED(Shared, shared);
  const int thread = static_cast<int>(threadIdx.x), sequences = plan->sequences;
  if (thread < sequences) {
    bool leaves = willing[thread] != 0 && targets[thread] < 0;
    if (willing[thread] != 0)
      for (int i = 0; i < count; ++i) leaves = leaves || candidates[thread * count + i] == targets[thread];
    if (leaves) {
      left[thread] = layer + 1;
      result->sequence[thread] = {layer + 1, targets[thread], chances[thread], 0};
    }
    shared.left[thread] = left[thread];
  }
  if (thread == 0) result->heads_run += 1;
  __syncthreads();
  bool all = true;
  for (int sequence = 0; sequence < sequences; ++sequence) all = all && shared.left[sequence] != 0;
  if (!all) return;
  for (int later = layer + 1 + thread; later < layers; later += kDecideThreads)
    runs[later] = checks[later] = 0;
  if (thread == 0) flags[kHeadWanted] = 0;
}

// Block (part of a row, row): out = x for rows of sequences that left after `done` layers, of those that have
// not left for 0. x, out (rows x hidden); left (sequences).
extern "C" __global__ void __launch_bounds__(kRowThreads)
    keep_left(const float* x, const int* left, float* out, int each, int hidden, int done) {
  const int64_t row = blockIdx.y;
  const int i = row_number();
  if (i < hidden && left[row / each] == done) out[row * hidden + i] = x[row * hidden + i];
}

// What came of it: those that have not left get the token that the head gives after all layers.
extern "C" __global__ void __launch_bounds__(kDecideThreads)
    end_exits(const ExitPlan* plan, ExitResult* result, const int* runs, const int* flags, const int* left,
              const int* targets, int layers) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < plan->sequences && left[thread] == 0)
    result->sequence[thread] = {layers, targets[thread], 1.0f, 0};
  if (thread != 0) return;
  result->heads_run += flags[kHeadWanted];
  for (int layer = 0; layer < layers; ++layer) result->layers_run += runs[layer] != 0 ? 1 : 0;
}

}  // namespace specee::cuda
