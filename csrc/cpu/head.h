// Final norm and LM head. Logits are made 256 at a time and consumed at once; only logits() and sample() keep
// them.
#pragma once

#include <utility>
#include <vector>

#include "cpu/costs.h"
#include "cpu/inputs.h"
#include "cpu/sampling.h"
#include "cpu/thread_pool.h"
#include "cpu/weight_streams.h"
#include "cpu/weights.h"

namespace specee {

// How to draw the token after one row.
struct Draw {
  Sampling sampling;
  uint64_t position;      // of the token to draw
  std::vector<int> path;  // distinct tokens up to and with the row; not needed without a penalty
};

class Head {
 public:
  Head(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels, ThreadPool& pool,
       Costs& costs, WeightStreams& streams);

  // `hidden`: one pointer to hidden_size floats a row, any number of rows.
  void logits(const std::vector<const float*>& hidden,
              float* out);  // rows x vocab_size
  void argmax(const std::vector<const float*>& hidden, int64_t* out);
  // ids and values are rows x k, best first, lower id first among equals.
  void topk(const std::vector<const float*>& hidden, int k, int64_t* ids, float* values);
  // One Draw a row.
  void sample(const std::vector<const float*>& hidden, const std::vector<Draw>& draws, int64_t* out);

 private:
  struct Piece {  // logits of some rows for columns [begin, begin + columns)
    int row, rows, begin, columns;
    const float* values;
    ptrdiff_t stride;
  };
  template <class Consume>
  void stream(const std::vector<const float*>& hidden, const Consume& consume);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  Costs& costs_;
  WeightStreams& streams_;
  Forms forms_;
  Inputs inputs_;
  std::vector<std::vector<float>> pieces_;  // per member
};

}  // namespace specee
