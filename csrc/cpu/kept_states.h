// The layers whose outputs a sequence keeps of its rows, and the buffers that they are kept in.
#pragma once

#include <memory>
#include <vector>

#include "specee/config.h"

namespace specee {

// What was kept of one row: layers x hidden_size.
using KeptRow = std::unique_ptr<float[]>;

class KeptStates {
 public:
  // With `poison`, fresh buffers hold NaN.
  KeptStates(const ModelConfig& config, bool poison);

  // What keep() of specee/backends/protocol.py is given. Buffers of before do not fit any more: let go of
  // them. Throws RowError before it changes anything.
  void set(const std::vector<int>& layers, int positions);
  bool any() const { return !layers_.empty(); }
  const std::vector<int>& layers() const { return layers_; }
  int positions() const { return positions_; }
  // By layers done, 0 to num_layers: where in a row's buffer the state behind them is, -1 if it is not kept.
  const std::vector<int>& offsets() const { return offsets_; }

  // Buffers go round: none is allocated for each token.
  KeptRow take();
  void give(KeptRow row) noexcept;

 private:
  void check(const std::vector<int>& layers, int positions) const;

  int num_layers_, hidden_size_;
  bool poison_;
  std::vector<int> layers_;
  int positions_ = 0;
  std::vector<int> offsets_;
  std::vector<KeptRow> spare_;
};

}  // namespace specee
