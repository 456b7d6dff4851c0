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
      inputs_(std::make_unique<Inputs>(kernels, forms_, config.hidden_size, pool.size())),
      adapter_pass_(config, kernels, pool.size()),
      pieces_(static_cast<size_t>(pool.size()),
              std::vector<float>(static_cast<size_t>(std::max(kPieceValues, kMaxRows * kHeadRun)))) {}

void HeadStream::reserve_type(WeightType type) {
  const InputForm form = kernels_.input_form(type);
  if (forms_.has(form)) return;
  forms_.add(form);
  inputs_ = std::make_unique<Inputs>(kernels_, forms_, config_.hidden_size, pool_.size());
}

InputRows HeadStream::normed(Team& team, const float* const* hidden, int rows, const DraftHead* head,
                             std::vector<char>& finite) {
  const int size = config_.hidden_size;
  const Adapter* adapter = head != nullptr ? head->adapter() : nullptr;
  const float* adapted = adapter != nullptr ? adapter_pass_.run(team, *adapter, hidden, rows) : nullptr;
  char& mine = finite[static_cast<size_t>(team.index())];
  return inputs_->prepare(team, rows, size, forms_, [&](int r, float* x) {
    const float* state = adapted != nullptr ? adapted + static_cast<ptrdiff_t>(r) * size : hidden[r];
    if (head != nullptr && head->normed())
      std::copy(state, state + size, x);
    else
      kernels_.rms_norm(state, weights_.final_norm().data(), config_.norm_eps, size, x);
    for (int i = 0; i < size; ++i) mine &= std::isfinite(x[i]);
  });
}

void HeadStream::check(const std::vector<char>& finite, const DraftHead* head) {
  if (std::find(finite.begin(), finite.end(), 0) == finite.end()) return;
  if (head != nullptr && head->adapter() != nullptr)
    throw NumericalError(
        "a row is infinite or not a number behind the adapter of a draft head: check the speculator file, or "
        "draft without it");
  if (head != nullptr && head->normed())
    throw NumericalError(
        "what a drafter block gives is infinite or not a number: check the speculator file, or draft without "
        "it");
  throw NumericalError(
      "the final norm of a row is infinite or not a number: the model overflows fp32; check the "
      "checkpoint");
}

}  // namespace specee
