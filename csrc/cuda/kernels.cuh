// Every kernel, and the list of their names: what NVRTC compiles at run time, and what kernels.cu makes a
// table of.
#pragma once

#include "acceptance.cuh"
#include "activations.cuh"
#include "attention.cuh"
#include "candidates.cuh"
#include "compaction.cuh"
#include "embedding.cuh"
#include "linear.cuh"
#include "paths.cuh"
#include "predictor.cuh"
#include "residual.cuh"
#include "rms_norm.cuh"
#include "rotation.cuh"
#include "scoring.cuh"
#include "shares.cuh"
#include "swiglu.cuh"
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
  X(candidates_bf16)           \
  X(candidates_int8)           \
  X(embed_bf16)                \
  X(embed_int8)                \
  X(norm_rows_bf16)            \
  X(norm_rows_int8)            \
  X(swiglu_bf16)               \
  X(swiglu_int8)               \
  X(turn_angles)               \
  X(turn_heads_bf16)           \
  X(turn_heads_fp16)           \
  X(fill_paths)                \
  X(add_bias)                  \
  X(copy_rows)                 \
  X(token_shares)
