#include "cpu/sampling.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "specee/philox.h"

namespace specee {
namespace {

struct Candidate {
  double score;
  int column;
};

bool better(const Candidate& a, const Candidate& b) {
  return a.score > b.score || (a.score == b.score && a.column < b.column);
}

// Smallest logit that top-k keeps; logits equal to it are all kept.
float kth_largest(const float* logits, int columns, int k) {
  std::vector<float> copy(logits, logits + columns);
  std::nth_element(copy.begin(), copy.begin() + (k - 1), copy.end(), [](float a, float b) { return a > b; });
  return copy[static_cast<size_t>(k - 1)];
}

// Keeps the smallest prefix, best first, whose probability reaches top_p. Sorts only as much as it needs.
void keep_nucleus(std::vector<Candidate>& candidates, double top_p) {
  double best = candidates.front().score;
  for (const Candidate& c : candidates) best = std::max(best, c.score);
  double total = 0.0;  // in order of ids, as the plain version adds
  for (const Candidate& c : candidates) total += std::exp(c.score - best);
  double reached = 0.0;
  for (size_t sorted = 0, kept = 0; sorted < candidates.size();) {
    const size_t more = std::min(candidates.size(), std::max<size_t>(64, sorted * 8));
    const auto from = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
    std::partial_sort(from, candidates.begin() + static_cast<std::ptrdiff_t>(more), candidates.end(), better);
    for (sorted = more; kept < sorted;) {
      reached += std::exp(candidates[kept++].score - best);
      if (reached >= top_p * total) return candidates.resize(kept);
    }
  }
}

}  // namespace

int argmax_column(const float* logits, int columns) {
  int best = 0;
  for (int column = 1; column < columns; ++column)
    if (logits[column] > logits[best]) best = column;
  return best;
}

std::vector<float> penalise(float* logits, const std::vector<int>& seen, double penalty) {
  const float by = static_cast<float>(penalty);
  std::vector<float> before;
  for (const int column : seen) {
    float& logit = logits[column];
    before.push_back(logit);
    logit = logit < 0.0f ? logit * by : logit / by;
  }
  return before;
}

void restore(float* logits, const std::vector<int>& seen, const std::vector<float>& values) {
  for (size_t i = 0; i < seen.size(); ++i) logits[seen[i]] = values[i];
}

int sample_column(const float* logits, int columns, const int* ids, const Sampling& sampling,
                  uint64_t position) {
  const int greedy = argmax_column(logits, columns);
  if (sampling.temperature == 0.0) return greedy;
  const bool filtered = sampling.top_k > 0 && sampling.top_k < columns;
  const float floor = filtered ? kth_largest(logits, columns, sampling.top_k) : -HUGE_VALF;
  const double best = logits[greedy] / sampling.temperature;
  const double least = sampling.min_p > 0.0 ? best + std::log(sampling.min_p) : -HUGE_VAL;
  const auto noisy = [&](const Candidate& c) {
    const int token = ids != nullptr ? ids[c.column] : c.column;
    const double noise = gumbel_noise(sampling.seed, position, static_cast<uint32_t>(token));
    return Candidate{c.score + noise, c.column};
  };
  // Starting from the likeliest column, most others cannot win whatever their noise, and need none drawn.
  Candidate winner = noisy({best, greedy});
  const auto offer = [&](const Candidate& c) {
    if (c.score < least || c.score + kMaxGumbel < winner.score) return;
    const Candidate drawn = noisy(c);
    if (better(drawn, winner)) winner = drawn;
  };
  std::vector<Candidate> candidates;
  if (sampling.top_p < 1.0) candidates.reserve(static_cast<size_t>(columns));
  for (int column = 0; column < columns; ++column) {
    if (logits[column] < floor) continue;
    const Candidate candidate = {logits[column] / sampling.temperature, column};
    sampling.top_p < 1.0 ? candidates.push_back(candidate) : offer(candidate);
  }
  if (sampling.top_p < 1.0) keep_nucleus(candidates, sampling.top_p);
  for (const Candidate& candidate : candidates) offer(candidate);
  return winner.column;
}

}  // namespace specee
