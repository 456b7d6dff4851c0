#include "cpu/exit_check.h"

#include <algorithm>
#include <cmath>

namespace specee {
namespace {

// features: logits, probabilities of the layer before (or zeros), anything -> of this layer.
void renew(float* features, int count, const float* logits, bool checked) {
  float *score = features, *chance = features + count, *change = features + 2 * count;
  const float largest = *std::max_element(logits, logits + count);
  float sum = 0.0f;
  for (int i = 0; i < count; ++i) sum += std::exp(logits[i] - largest);
  for (int i = 0; i < count; ++i) {
    const float now = std::exp(logits[i] - largest) / sum;
    score[i] = logits[i];
    change[i] = checked ? now - chance[i] : now;
    chance[i] = now;
  }
}

}  // namespace

int likeliest(const ExitRow& row, const Sampling& sampling, uint64_t position) {
  const std::vector<int>& tokens = row.candidates->tokens;
  std::vector<size_t> order(tokens.size());
  for (size_t at = 0; at < order.size(); ++at) order[at] = at;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return tokens[a] < tokens[b]; });
  std::vector<int> ids;
  std::vector<float> logits;
  for (const size_t at : order) {
    ids.push_back(tokens[at]);
    logits.push_back(row.features[at]);
  }
  const int count = static_cast<int>(ids.size());
  const int column = sampling.temperature == 0.0
                         ? argmax_column(logits.data(), count)
                         : sample_column(logits.data(), count, ids.data(), sampling, position);
  return ids[static_cast<size_t>(column)];
}

void ExitCheck::run(const std::vector<ExitRow*>& rows) {
  std::vector<const float*> hidden;
  std::vector<const Candidates*> candidates;
  if (inner_.size() < rows.size()) inner_.resize(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    ExitRow& row = *rows[i];
    hidden.push_back(row.hidden);
    candidates.push_back(row.candidates);
    row.features.resize(kExitFeatures * row.candidates->tokens.size());
    inner_[i].resize(static_cast<size_t>(row.predictor->first.outputs()));
  }
  scoring_.run(hidden, candidates, [&](int index, const float* logits) {
    ExitRow& row = *rows[static_cast<size_t>(index)];
    renew(row.features.data(), static_cast<int>(row.candidates->tokens.size()), logits, row.checked);
    row.checked = true;
    row.chance =
        exit_chance(kernels_, *row.predictor, row.features.data(), inner_[static_cast<size_t>(index)].data());
  });
}

}  // namespace specee
