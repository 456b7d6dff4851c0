// Takes up to 64 rows through layers: the loop every decoding method shares.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/inputs.h"
#include "cpu/kv_cache.h"
#include "cpu/rope.h"
#include "cpu/thread_pool.h"
#include "cpu/weights.h"

namespace specee {

// A row on its way: where its keys go, what it attends to, how far it is.
struct PassRow {
  KvCache* cache;
  int slot;
  int position;
  int identity;               // positions below this are committed, in slots of the same number
  std::vector<int32_t> path;  // slots of positions identity .. position; empty if each is its own number
  int done;                   // layers done before the pass
  float* hidden;              // hidden_size: state after `done` layers, then after to_layer
};

class Forward {
 public:
  Forward(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels, ThreadPool& pool);

  // Positions up to here can be processed from now on.
  void reserve(int positions);
  // Rows sorted by `done`, lowest first; every row a row attends to is either at `to_layer` already or among
  // them with the same or more layers done. At most kMaxRows.
  void run(std::vector<PassRow>& rows, int to_layer);

 private:
  struct Scratch {
    std::vector<float> scores;
    std::vector<float> tile;
  };
  void run_layer(Team& team, std::vector<PassRow>& rows, int count, int layer);
  void project_qkv(Team& team, int count, const LayerWeights& w);
  void rotate_and_store(Team& team, std::vector<PassRow>& rows, int count, int layer);
  void attend(Team& team, std::vector<PassRow>& rows, int count, int layer);
  void attend_task(const PassRow& row, int layer, int kv_head, int heads, const float* q, float* out,
                   Scratch& scratch);
  void feed_forward(Team& team, int count, const LayerWeights& w);
  float* state(int row) { return state_.data() + static_cast<size_t>(row) * config_.hidden_size; }

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  Rope rope_;
  Inputs inputs_;
  int qkv_width_;
  int score_stride_ = 0;
  std::vector<float> state_;      // kMaxRows x hidden_size, the residual stream
  std::vector<float> qkv_;        // kMaxRows x (q_dim + 2 kv_dim)
  std::vector<float> attended_;   // kMaxRows x q_dim
  std::vector<float> inner_;      // kMaxRows x intermediate_size
  std::vector<Scratch> scratch_;  // per member
};

}  // namespace specee
