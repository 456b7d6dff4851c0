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

void Scoring::check(const std::vector<int>& tokens) const {
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
}

std::vector<Candidates> Scoring::gather(const std::vector<std::vector<int>>& tokens) const {
  for (const std::vector<int>& row : tokens) check(row);
  if (tokens.empty()) return {};
  const PackedMatrix& head = weights_.head();
  const int outputs = static_cast<int>(tokens.size()) * kLanes;
  const auto rows = std::make_shared<PackedMatrix>(outputs, head.k(), head.type(), "candidates");
  std::vector<Candidates> found;
  for (const std::vector<int>& row : tokens) {
    const int block = static_cast<int>(found.size());
    for (size_t lane = 0; lane < row.size(); ++lane)
      rows->copy_row(head, row[lane], block * kLanes + static_cast<int>(lane));
    found.push_back({row, rows, block});
  }
  return found;
}

bool Scoring::score(Team& team, const float* hidden, const Candidates& candidates, float* logits) {
  const int size = config_.hidden_size;
  bool finite = true;
  const InputRows inputs = inputs_.prepare(team, 1, size, forms_, [&](int, float* x) {
    kernels_.rms_norm(hidden, weights_.final_norm().data(), config_.norm_eps, size, x);
    for (int i = 0; i < size; ++i) finite &= std::isfinite(x[i]);
  });
  const PackedMatrix& rows = *candidates.rows;
  LinearCall call = linear_call(kernels_, rows, inputs, 1, rows.outputs(), logits, kLanes, Epilogue::store);
  call.block_begin = candidates.block;
  call.block_end = candidates.block + 1;
  call.column_origin = candidates.block * kLanes;
  run_linear(kernels_, rows, call);
  return finite;
}

void Scoring::check(const std::vector<char>& finite) {
  if (std::find(finite.begin(), finite.end(), 0) != finite.end())
    throw NumericalError(
        "the final norm of a row is infinite or not a number: the model overflows fp32; check the "
        "checkpoint");
}

}  // namespace specee
