// Every kernel, and the list of their names: what NVRTC compiles at run time, and what kernels.cu makes a
// table of.
#pragma once

#include "acceptance.cuh"
#include "activations.cuh"
#include "attention.cuh"
#include "compaction.cuh"
#include "linear.cuh"
#include "predictor.cuh"
#include "round.cuh"
#include "scoring.cuh"
#include "targets.cuh"

#define SPECEE_CUDA_KERNELS(X) \
  X(round_rows)                \
  X(quantise_rows)             \
  X(linear_bf16_1)             \
  X(linear_bf16_2)             \
  X(linear_bf16_4)             \
  X(linear_bf16_8)             \
  X(linear_int8_1)             \
  X(linear_int8_2)             \
  X(linear_int8_4)             \
  X(linear_int8_8)             \
  X(linear_int4_1)             \
  X(linear_int4_2)             \
  X(linear_int4_4)             \
  X(linear_int4_8)             \
  X(score_candidates)          \
  X(score_grouped)             \
  X(exit_predictor)            \
  X(attention_bf16_64)         \
  X(attention_bf16_128)        \
  X(attention_bf16_256)        \
  X(attention_fp16_64)         \
  X(attention_fp16_128)        \
  X(attention_fp16_256)        \
  X(attention_combine)         \
  X(target_pieces)             \
  X(accept_drafts)             \
  X(compact_cache)             \
  X(begin_round)               \
  X(decide_exit)               \
  X(take_drafts)               \
  X(end_round)
