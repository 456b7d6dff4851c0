// Single operations outside a model, for benchmarks and tests: one call at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cpu/attention.h"
#include "cpu/drawing.h"
#include "cpu/inputs.h"
#include "cpu/shadow.h"
#include "cpu/weight_streams.h"

namespace specee {

// Copies of one weight matrix: calls go round them, so that weights come from memory when all copies together
// do not fit a cache.
class LinearOp {
 public:
  // With `swiglu`, rows of gate come first, then as many of up, and outputs are half as many as rows.
  LinearOp(int outputs, int k, WeightType type, const std::string& isa, int threads, int copies, bool swiglu);

  // The next rows of every copy.
  void set_rows(int row_begin, int rows, int columns, const void* values, WeightType source);
  // y[r] = product of x[r] (k floats), `rows` up to kMaxRows, input preparation included.
  void run(const float* x, int rows, float* y);
  int k() const { return matrices_.front().k(); }
  int outputs() const { return outputs_; }
  size_t bytes() const { return matrices_.front().bytes(); }

 private:
  int outputs_;
  bool swiglu_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::vector<PackedMatrix> matrices_;
  Forms forms_;
  Inputs inputs_;
  std::vector<std::vector<WeightRun>> runs_;  // per member: every copy, then the first again
  std::vector<WeightStream> streams_;         // per member
  size_t next_ = 0;
};

// Copies of the keys and values of one layer.
class AttentionOp {
 public:
  AttentionOp(int num_heads, int num_kv_heads, int head_dim, int context, Dtype dtype, const std::string& isa,
              int threads, int copies);

  // keys, values: context x num_kv_heads x head_dim.
  void set(const float* keys, const float* values);
  // q, out: rows x num_heads x head_dim; the rows are the last positions of the context.
  void run(const float* q, int rows, float* out);
  const ModelConfig& config() const { return config_; }
  int context() const { return config_.max_position; }
  size_t bytes() const;

 private:
  const ModelConfig config_;
  const Kernels& kernels_;
  ThreadPool pool_;
  KvCache cache_;
  Attention attention_;
  int next_ = 0;
};

// The head of a model whose layers do not matter.
class HeadOp {
 public:
  HeadOp(int vocab, int k, WeightType type, const std::string& isa, int threads);

  void set_rows(int row_begin, int rows, int columns, const void* values, WeightType source);
  // x: rows x k hidden states (the final norm is all ones); out: the greedy token of each.
  void argmax(const float* x, int rows, int64_t* out);
  // The same, and its probability.
  void shadow(const float* x, int rows, int64_t* tokens, float* confidences);
  int k() const { return config_.hidden_size; }
  size_t bytes() const { return weights_.head().bytes(); }

 private:
  const ModelConfig config_;
  const Kernels& kernels_;
  ThreadPool pool_;
  ModelWeights weights_;
  Costs costs_;
  WeightStreams streams_;
  HeadStream stream_;
  Drawing drawing_;
  Shadow shadow_;

  std::vector<const float*> states(const float* x, int rows) const;
};

}  // namespace specee
