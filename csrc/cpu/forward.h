// Takes up to 64 rows through layers: the loop every decoding method shares.
#pragma once

#include <vector>

#include "cpu/attention.h"
#include "cpu/costs.h"
#include "cpu/inputs.h"
#include "cpu/rope.h"
#include "cpu/thread_pool.h"
#include "cpu/weight_streams.h"
#include "cpu/weights.h"

namespace specee {

class Forward {
 public:
  Forward(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels, ThreadPool& pool,
          Costs& costs, WeightStreams& streams);

  // Positions up to here can be processed from now on.
  void reserve(int positions);
  // Rows sorted by `done`, lowest first; every row a row attends to is either at `to_layer` already or among
  // them with the same or more layers done. At most kMaxRows.
  void run(std::vector<PassRow>& rows, int to_layer);

 private:
  struct LayerForms {
    Forms qkv, o, gate_up, down;
  };
  void run_layer(Team& team, Lap& lap, std::vector<PassRow>& rows, int count, int layer);
  // q, k, v, rotated, and keys and values in the cache: a member finishes the heads it has computed.
  void project_heads(Team& team, Lap& lap, std::vector<PassRow>& rows, int count, int layer);
  void multiply_heads(Team& team, const InputRows& inputs, int rows, const LayerWeights& w, Range heads);
  void finish_heads(Team& team, std::vector<PassRow>& rows, int count, int layer, Range heads);
  void multiply(Team& team, const PackedMatrix& matrix, const InputRows& inputs, int rows, int outputs,
                float* y, Epilogue epilogue);
  void feed_forward(Team& team, Lap& lap, int count, int layer);
  // Keeps the states behind `layer`, of rows that want it.
  void keep(const Team& team, const std::vector<PassRow>& rows, int count, int layer);
  float* state(int row) { return state_.data() + static_cast<size_t>(row) * config_.hidden_size; }

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  Costs& costs_;
  WeightStreams& streams_;
  Rope rope_;
  Attention attention_;
  Inputs inputs_;
  std::vector<LayerForms> forms_;  // per layer
  int qkv_width_;
  std::vector<float> state_;                  // kMaxRows x hidden_size, the residual stream
  std::vector<float> qkv_;                    // kMaxRows x (q_dim + 2 kv_dim)
  std::vector<float> attended_;               // kMaxRows x q_dim
  std::vector<float> inner_;                  // kMaxRows x intermediate_size
  std::vector<std::vector<float>> narrowed_;  // per member: a head's keys or values in the cache's dtype
};

}  // namespace specee
