// The decoder layer of a drafter, and what brings its input together: see specee/fitting/drafter.py for the
// formula. It knows nothing of texts; drafter.h does.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cpu/forward.h"

namespace specee {

class DrafterBlock {
 public:
  // `layers`: of the model, whose states are read. `inner`: width of the feed-forward part. `type`: of every
  // matrix. `plain`: as EAGLE has it, without the norms but one for the state, with a bias. Throws
  // ConfigurationError for layers that are none, or not ascending, or more than one of a plain block.
  DrafterBlock(const ModelConfig& model, const ModelWeights& weights, const Kernels& kernels,
               ThreadPool& pool, const std::vector<int>& layers, int inner, WeightType type, bool plain);

  const std::vector<int>& layers() const { return layers_; }
  // The block as a model of one layer: what caches for it are made for.
  const ModelConfig& config() const { return config_; }
  // Bytes of weights that one row reads.
  size_t bytes() const;
  // By the names of specee/models/drafter_parts.py. Throws CheckpointError as ModelWeights::set().
  void set(const std::string& name, int rows, int columns, const void* values, WeightType source);
  void check_complete() const;  // throws CheckpointError
  // Positions up to here can be processed from now on.
  void reserve(int positions) { forward_.reserve(positions); }

  // One position. Its key and value go to `slot`, and it attends to all slots before; with a `path`, to those
  // below `identity` and to the path's, which ends with its own.
  struct Row {
    KvCache* cache;
    int slot;
    int token;
    std::vector<const float*> states;  // of the position before, by layer: hidden_size each; or empty
    const float* before;               // then what the block gave there: hidden_size
    float* out;                        // hidden_size; may be `before`
    int identity;
    std::vector<int32_t> path;
  };
  // All rows have states, or none has. Rows of a cache in order.
  void run(const std::vector<Row>& rows);

 private:
  struct Part {  // one of both
    PackedMatrix* matrix;
    std::vector<float>* vector;
    bool bias = false;  // of the matrix
    bool given = false;
  };
  void set(Part& part, const std::string& name, int rows, int columns, const void* values, WeightType source);
  void project(const Row* rows, int count);
  void multiply(Team& team, const PackedMatrix& matrix, const InputRows& inputs, int rows, float* y) const;
  void gather(const Row& row, const float* embedding, float* both) const;
  void norm(const float* from, const std::vector<float>& weight, float* to) const;

  const ModelConfig& model_;
  const PackedMatrix& embed_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  const std::vector<int> layers_;
  const bool plain_;
  const ModelConfig config_;
  ModelWeights weights_;    // of the layer; tokens and a final norm are the model's
  PackedMatrix fuse_, fc_;  // the first is empty in a plain block
  std::vector<std::vector<float>> state_norms_;
  std::vector<float> embed_norm_, fused_norm_;
  std::map<std::string, Part> parts_;  // those that are not the layer's
  Costs costs_;
  WeightStreams streams_;
  Forward forward_;
  Forms forms_;
  Inputs inputs_;
  std::vector<float> embedded_, fused_, x_;  // kMaxRows x hidden_size
};

}  // namespace specee
