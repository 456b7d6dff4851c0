#include "cpu/adapter.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cpu/weight_streams.h"

namespace specee {

Adapter::Adapter(int hidden, int width, const float* norm_values, const float* down_values,
                 const float* up_values)
    : norm(norm_values, norm_values + hidden),
      down(width, hidden, WeightType::bf16, "an adapter"),
      up(hidden, width, WeightType::bf16, "an adapter") {
  down.set_rows({}, 0, width, down_values, WeightType::f32);
  up.set_rows({}, 0, hidden, up_values, WeightType::f32);
}

AdapterPass::AdapterPass(const ModelConfig& config, const Kernels& kernels, int members)
    : config_(config), kernels_(kernels), members_(members) {
  forms_.add(kernels.input_form(WeightType::bf16));
}

void AdapterPass::reserve(int width) {
  if (width <= width_) return;
  std::vector<Inputs> inputs;
  inputs.emplace_back(kernels_, forms_, std::max(width, config_.hidden_size), members_);
  inner_.resize(static_cast<size_t>(kMaxRows) * static_cast<size_t>(width));
  states_.resize(static_cast<size_t>(kMaxRows) * static_cast<size_t>(config_.hidden_size));
  inputs_ = std::move(inputs);
  width_ = width;
}

const float* AdapterPass::run(Team& team, const Adapter& adapter, const float* const* hidden, int rows) {
  Inputs& inputs = inputs_.front();
  const int size = config_.hidden_size, width = adapter.width();
  const auto multiply = [&](const PackedMatrix& matrix, const InputRows& x, float* y, Epilogue epilogue) {
    const LinearCall call =
        linear_call(kernels_, matrix, x, rows, matrix.outputs(), y, matrix.outputs(), epilogue);
    run_share(kernels_, matrix, call, share_blocks(team.index(), team.size(), matrix, epilogue), nullptr);
    team.barrier();
  };
  const InputRows normed = inputs.prepare(team, rows, size, forms_, [&](int r, float* x) {
    kernels_.rms_norm(hidden[r], adapter.norm.data(), config_.norm_eps, size, x);
  });
  multiply(adapter.down, normed, inner_.data(), Epilogue::store);
  const InputRows activated = inputs.prepare(team, rows, width, forms_, [&](int r, float* x) {
    std::memcpy(x, inner_.data() + static_cast<ptrdiff_t>(r) * width,
                static_cast<size_t>(width) * sizeof(float));
    kernels_.silu(x, width);
  });
  // What a member adds to, it has put there itself.
  const Range mine = share_blocks(team.index(), team.size(), adapter.up, Epilogue::add);
  const int begin = mine.begin * kLanes, end = std::min(mine.end * kLanes, size);
  for (int r = 0; r < rows && begin < end; ++r)
    std::memcpy(states_.data() + static_cast<ptrdiff_t>(r) * size + begin, hidden[r] + begin,
                static_cast<size_t>(end - begin) * sizeof(float));
  multiply(adapter.up, activated, states_.data(), Epilogue::add);
  return states_.data();
}

}  // namespace specee
