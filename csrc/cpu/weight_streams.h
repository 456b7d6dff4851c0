// Which weights each member reads in a pass, in order: what the kernels fetch ahead (kernels.h,
// WeightStream).
#pragma once

#include <vector>

#include "cpu/thread_pool.h"
#include "cpu/weights.h"
#include "specee/config.h"

namespace specee {

// Member `index` of `size` multiplies blocks [begin, end) of a matrix: a gate block stays with its up block.
Range share_blocks(int index, int size, const PackedMatrix& matrix, Epilogue epilogue);

// The same for heads of queries, keys and values, of which the fewest that fill whole blocks stay together.
Range share_heads(int index, int size, const ModelConfig& config);

// Blocks of one part of q, k, v that heads [begin, end) need; `first` is the output with which the part
// begins.
Range head_blocks(Range heads, const ModelConfig& config, const PackedMatrix& part, int first);

// Those blocks as a run of weights.
WeightRun weight_run(const PackedMatrix& matrix, Range blocks);

class WeightStreams {
 public:
  WeightStreams(const ModelConfig& config, const ModelWeights& weights, int members);

  // A pass through layers [layer, to_layer) begins; after the last layer comes the head.
  void begin(int member, int layer, int to_layer);
  // The head alone.
  void begin_head(int member) { begin(member, layers_, layers_); }
  WeightStream* of(int member) { return &streams_[static_cast<size_t>(member)]; }
  // The current product is done.
  void done(int member);

 private:
  int layers_;
  std::vector<size_t> first_run_;             // per layer, then of the head
  std::vector<std::vector<WeightRun>> runs_;  // per member: all layers, the head, layer 0's q, k, v again
  std::vector<WeightStream> streams_;         // per member
};

}  // namespace specee
