#include "cpu/kept_states.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "cpu/kernels.h"
#include "specee/errors.h"

namespace specee {

KeptStates::KeptStates(const ModelConfig& config, bool poison)
    : num_layers_(config.num_layers), hidden_size_(config.hidden_size), poison_(poison) {}

void KeptStates::check(const std::vector<int>& layers, int positions) const {
  if (positions < 0)
    throw RowError("cannot keep the states of " + std::to_string(positions) +
                   " positions: give 0 or more, and no layers to keep nothing");
  int before = 0;
  for (const int layer : layers) {
    if (layer < 1 || layer > num_layers_)
      throw RowError("cannot keep states behind layer " + std::to_string(layer) + ": layers are 1 to " +
                     std::to_string(num_layers_));
    if (layer <= before)
      throw RowError("layer " + std::to_string(layer) + " to keep comes behind layer " +
                     std::to_string(before) + ": give each layer once, in ascending order");
    before = layer;
  }
}

void KeptStates::set(const std::vector<int>& layers, int positions) {
  check(layers, positions);
  std::vector<int> own = layers, offsets(static_cast<size_t>(num_layers_) + 1, -1);
  std::vector<KeptRow> spare;
  spare.reserve(static_cast<size_t>(kMaxRows));
  for (size_t i = 0; i < own.size(); ++i)
    offsets[static_cast<size_t>(own[i])] = static_cast<int>(i) * hidden_size_;
  layers_ = std::move(own);
  offsets_ = std::move(offsets);
  spare_ = std::move(spare);
  positions_ = positions;
}

KeptRow KeptStates::take() {
  const size_t size = layers_.size() * static_cast<size_t>(hidden_size_);
  KeptRow row;
  if (spare_.empty()) {
    row.reset(new float[size]);
  } else {
    row = std::move(spare_.back());
    spare_.pop_back();
  }
  if (poison_) std::fill_n(row.get(), size, std::numeric_limits<float>::quiet_NaN());
  return row;
}

// What a pass may need is held ready; what a long prompt left behind goes.
void KeptStates::give(KeptRow row) noexcept {
  if (row != nullptr && spare_.size() < spare_.capacity()) spare_.push_back(std::move(row));
}

}  // namespace specee
