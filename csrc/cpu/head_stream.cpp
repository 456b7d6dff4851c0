#include "cpu/head_stream.h"

#include "specee/errors.h"

namespace specee {

HeadStream::HeadStream(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels,
                       ThreadPool& pool, Costs& costs, WeightStreams& streams)
    : config_(config),
      weights_(weights),
      kernels_(kernels),
      pool_(pool),
      costs_(costs),
      streams_(streams),
      forms_(forms_of(kernels, {&weights.head()})),
      inputs_(kernels, forms_, config.hidden_size, pool.size()),
      pieces_(static_cast<size_t>(pool.size()),
              std::vector<float>(static_cast<size_t>(kMaxRows) * kPieceColumns)) {}

InputRows HeadStream::normed(Team& team, const float* const* hidden, int rows, std::vector<char>& finite) {
  char& mine = finite[static_cast<size_t>(team.index())];
  return inputs_.prepare(team, rows, config_.hidden_size, forms_, [&](int r, float* x) {
    kernels_.rms_norm(hidden[r], weights_.final_norm().data(), config_.norm_eps, config_.hidden_size, x);
    for (int i = 0; i < config_.hidden_size; ++i) mine &= std::isfinite(x[i]);
  });
}

void HeadStream::check(const std::vector<char>& finite) {
  if (std::find(finite.begin(), finite.end(), 0) != finite.end())
    throw NumericalError(
        "the final norm of a row is infinite or not a number: the model overflows fp32; check the "
        "checkpoint");
}

}  // namespace specee
