// Attention of the rows of a pass over the caches of their sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/kv_cache.h"
#include "cpu/memory.h"
#include "cpu/thread_pool.h"
#include "specee/config.h"

namespace specee {

// A row on its way: where its keys go, what it attends to, how far it is.
struct PassRow {
  KvCache* cache;
  int slot;
  int position;
  int identity;                  // positions below this are committed, in slots of the same number
  std::vector<int32_t> path;     // slots of positions identity .. position; empty if each is its own number
  int done;                      // layers done before the pass
  float* hidden;                 // hidden_size: state after `done` layers, then after to_layer
  float* kept = nullptr;         // where states behind some layers are kept (kept_states.h), null if nowhere
  const int* kept_at = nullptr;  // offsets into `kept`, by layers done
};

// Queries of all rows, row r's at queries + r * stride, and where their results go: rows x q_dim.
struct AttentionBuffers {
  const float* queries;
  ptrdiff_t stride;
  float* out;
};

class Attention {
 public:
  Attention(const ModelConfig& config, const Kernels& kernels, int members);

  // Positions up to here can be attended to from now on.
  void reserve(int positions);
  // This member's share. `stream`: weights to fetch meanwhile. Where key/value heads cannot be shared out
  // evenly, texts are, if they can; and few rows of long ones wait for each other once, and then read each
  // key and value once; true if so.
  bool run(Team& team, const PassRow* rows, int count, int layer, const AttentionBuffers& buffers,
           WeightStream* stream);

 private:
  // Calls that go through keys and values together.
  static constexpr int kMostCalls = 8;
  struct Scratch {
    std::vector<AttendCall> calls;  // up to kMostCalls
    std::vector<float> tile, sums, so_far;
    Memory weights;  // kMostCalls x kMaxHeadGroup x score_stride_
  };
  struct Job;  // what run() was called with
  bool by_text(const Team& team, const PassRow* rows, int count, int layer) const;
  bool by_position(const Team& team, const PassRow* rows, int count) const;
  void run_heads(const Team& team, const Job& job);
  void run_scores(const Team& team, const Job& job);
  void run_values(const Team& team, const Job& job);
  AttendCall call_for(const Job& job, int row, int kv_head, int head, int heads, int number);
  // All steps of some calls, and the last one of others; both empty the list.
  void complete(std::vector<AttendCall>& calls, WeightStream* stream);
  void sum_up(std::vector<AttendCall>& calls, int dim_begin, int dim_end, WeightStream* stream);
  std::vector<AttendCall>& calls_of(int member) { return scratch_[static_cast<size_t>(member)].calls; }
  float* shared_scores(int row, int head) const;

  const ModelConfig& config_;
  const Kernels& kernels_;
  int score_stride_ = 0;
  Memory shared_;                 // kMostCalls rows x num_heads x score_stride_, between members
  std::vector<Scratch> scratch_;  // per member
};

}  // namespace specee
