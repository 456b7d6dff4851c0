// A drafter block: one decoder layer that guesses the token after the next from the newest token and the
// model's states before it. See specee/fitting/drafter.py for the formula, and specee/backends/protocol.py.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cpu/drawing.h"
#include "cpu/forward.h"
#include "cpu/sequence.h"

namespace specee {

// What a drafter has for one sequence: keys and values of the positions from `first` on, made from true
// states of the model. Slot s is position first + s. Behind them there is room for drafts.
class DrafterColumn {
 public:
  DrafterColumn(const ModelConfig& block, int capacity, Dtype dtype)
      : capacity_(capacity), cache_(block, capacity, dtype) {}

  int first() const { return first_; }
  int length() const { return static_cast<int>(tokens_.size()); }
  int capacity() const { return capacity_; }
  KvCache& cache() { return cache_; }

 private:
  friend class Drafter;
  int capacity_;
  KvCache cache_;
  int first_ = 1;
  std::vector<int> tokens_;  // of the positions that are there: what they were made for
};

// One chain of drafts to make.
struct ChainCall {
  Sequence* sequence;
  DrafterColumn* column;
  int length;        // at most so many, at least 1
  float stop_below;  // none after one that is less likely
  Sampling sampling;
};

struct Chain {
  std::vector<int64_t> tokens;
  std::vector<float> confidences;
};

class Drafter {
 public:
  // `layers`: of the model, ascending, whose states are read. `inner`: width of the block's feed-forward
  // part.
  Drafter(const ModelConfig& model, const ModelWeights& weights, const Kernels& kernels, ThreadPool& pool,
          Drawing& drawing, const std::vector<int>& layers, int inner, WeightType type);

  const ModelConfig* model() const { return &model_; }
  const std::vector<int>& layers() const { return layers_; }
  // Bytes of weights that one draft reads, the head's not included.
  size_t bytes() const;
  // By the names of specee/models/drafter_parts.py. Throws CheckpointError as ModelWeights::set().
  void set(const std::string& name, int rows, int columns, const void* values, WeightType source);
  void check_complete() const;  // throws CheckpointError
  std::unique_ptr<DrafterColumn> column(int capacity, Dtype dtype);

  // All chains grow side by side, each by the tokens that its sequence may be given next. Before that,
  // columns catch up with their sequences, as far back as states are kept. Throws RowError before anything
  // changes for a sequence whose newest position is not the only one to be computed, or that keeps no state
  // before it, for rows that are speculative, and where a column has no room.
  std::vector<Chain> draft(const std::vector<ChainCall>& calls, const DraftHead* head);

 private:
  // A row of a pass: where its keys go, and what it is made of.
  struct Entry {
    DrafterColumn* column;
    int slot;
    int token;
    const Sequence* states;  // of position `slot` - 1 + column->first(); null if `before` is given
    const float* before;     // hidden_size: what the drafter gave for the position before
    float* out;              // hidden_size
  };
  void check(const ChainCall& call) const;
  void catch_up(const std::vector<ChainCall>& calls, std::vector<std::vector<float>>& newest);
  void run(const std::vector<Entry>& entries);
  void project(const Entry* entries, int rows);
  void multiply(Team& team, const PackedMatrix& matrix, const InputRows& inputs, int rows, float* y) const;
  std::vector<float>* vector_of(const std::string& name);
  PackedMatrix* matrix_of(const std::string& name);

  const ModelConfig& model_;
  const ModelWeights& model_weights_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  Drawing& drawing_;
  const std::vector<int> layers_;
  const ModelConfig block_;  // the block as a model of one layer
  ModelWeights weights_;     // of the block; it has no tokens of its own
  PackedMatrix fuse_, fc_;
  std::vector<std::vector<float>> state_norms_;
  std::vector<float> embed_norm_, fused_norm_;
  std::vector<std::string> missing_;
  Costs costs_;
  WeightStreams streams_;
  Forward forward_;
  Forms forms_;
  Inputs inputs_;
  std::vector<float> embedded_, fused_, x_;  // kMaxRows x hidden_size
};

}  // namespace specee
