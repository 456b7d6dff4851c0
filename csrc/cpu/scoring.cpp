#include "cpu/scoring.h"

#include <set>
#include <string>

#include "specee/errors.h"

namespace specee {

Scoring::Scoring(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels,
                 ThreadPool& pool)
    : config_(config),
      weights_(weights),
      kernels_(kernels),
      pool_(pool),
      forms_(forms_of(kernels, {&weights.head()})),
      inputs_(kernels, forms_, config.hidden_size, pool.size()) {}

Candidates Scoring::gather(const std::vector<int>& tokens) const {
  const size_t count = tokens.size();
  if (count < 1 || count > static_cast<size_t>(kMaxCandidates))
    throw RowError(std::to_string(count) + " candidates for a row: 1 to " + std::to_string(kMaxCandidates) +
                   " are possible");
  if (std::set<int>(tokens.begin(), tokens.end()).size() != count)
    throw RowError("a candidate is given twice for one row; give each token once");
  for (const int token : tokens)
    if (token < 0 || token >= config_.vocab_size)
      throw RowError("candidate " + std::to_string(token) + " is outside the vocabulary; ids are 0 to " +
                     std::to_string(config_.vocab_size - 1));
  const PackedMatrix& head = weights_.head();
  Candidates found{tokens, PackedMatrix(static_cast<int>(count), head.k(), head.type(), "candidates")};
  for (size_t i = 0; i < count; ++i) found.rows.copy_row(head, tokens[i], static_cast<int>(i));
  return found;
}

bool Scoring::score(Team& team, const float* hidden, const Candidates& candidates, float* logits) {
  const int size = config_.hidden_size;
  bool finite = true;
  const InputRows inputs = inputs_.prepare(team, 1, size, forms_, [&](int, float* x) {
    kernels_.rms_norm(hidden, weights_.final_norm().data(), config_.norm_eps, size, x);
    for (int i = 0; i < size; ++i) finite &= std::isfinite(x[i]);
  });
  run_linear(kernels_, candidates.rows,
             linear_call(kernels_, candidates.rows, inputs, 1, candidates.rows.outputs(), logits, kLanes,
                         Epilogue::store));
  return finite;
}

void Scoring::check(const std::vector<char>& finite) {
  if (std::find(finite.begin(), finite.end(), 0) != finite.end())
    throw NumericalError(
        "the final norm of a row is infinite or not a number: the model overflows fp32; check the "
        "checkpoint");
}

}  // namespace specee
