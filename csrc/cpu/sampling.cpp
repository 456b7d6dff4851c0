#include "cpu/sampling.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "specee/philox.h"

namespace specee {
namespace {

bool better(const Ranked& a, const Ranked& b) {
  return a.score > b.score || (a.score == b.score && a.column < b.column);
}

// Smallest logit that top-k keeps; logits equal to it are all kept.
float kth_largest(const float* logits, int columns, int k) {
  std::vector<float> copy(logits, logits + columns);
  std::nth_element(copy.begin(), copy.begin() + (k - 1), copy.end(), [](float a, float b) { return a > b; });
  return copy[static_cast<size_t>(k - 1)];
}

// The best few so far, best first.
class Winners {
 public:
  explicit Winners(int most) : most_(static_cast<size_t>(most)) { found_.reserve(most_ + 1); }
  // What a score has to reach to be among them.
  double least() const { return found_.size() < most_ ? -HUGE_VAL : found_.back().score; }
  void offer(const Ranked& one) {
    if (found_.size() == most_ && !better(one, found_.back())) return;
    found_.insert(std::upper_bound(found_.begin(), found_.end(), one, better), one);
    if (found_.size() > most_) found_.pop_back();
  }
  std::vector<Ranked> take() { return std::move(found_); }

 private:
  size_t most_;
  std::vector<Ranked> found_;
};

std::vector<Ranked> largest(const float* logits, int columns, int most) {
  Winners winners(most);
  for (int column = 0; column < columns; ++column)
    if (logits[column] >= winners.least()) winners.offer({logits[column], column});
  return winners.take();
}

// Keeps the smallest prefix, best first, whose probability reaches top_p. Sorts only as much as it needs.
void keep_nucleus(std::vector<Ranked>& candidates, double top_p) {
  double best = candidates.front().score;
  for (const Ranked& c : candidates) best = std::max(best, c.score);
  double total = 0.0;  // in order of ids, as the plain version adds
  for (const Ranked& c : candidates) total += std::exp(c.score - best);
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

std::vector<Ranked> best_columns(const float* logits, int columns, const int* ids, const Sampling& sampling,
                                 uint64_t position, int most) {
  if (sampling.temperature == 0.0) return largest(logits, columns, most);
  const int greedy = argmax_column(logits, columns);
  const bool filtered = sampling.top_k > 0 && sampling.top_k < columns;
  const float floor = filtered ? kth_largest(logits, columns, sampling.top_k) : -HUGE_VALF;
  const double best = logits[greedy] / sampling.temperature;
  const double least = sampling.min_p > 0.0 ? best + std::log(sampling.min_p) : -HUGE_VAL;
  const auto noisy = [&](const Ranked& c) {
    const int token = ids != nullptr ? ids[c.column] : c.column;
    const double noise = gumbel_noise(sampling.seed, position, static_cast<uint32_t>(token));
    return Ranked{c.score + noise, c.column};
  };
  // Starting from the likeliest column, most others cannot win whatever their noise, and need none drawn.
  Winners winners(most);
  winners.offer(noisy({best, greedy}));
  const auto offer = [&](const Ranked& c) {
    if (c.column == greedy || c.score < least || c.score + kMaxGumbel < winners.least()) return;
    winners.offer(noisy(c));
  };
  std::vector<Ranked> candidates;
  if (sampling.top_p < 1.0) candidates.reserve(static_cast<size_t>(columns));
  for (int column = 0; column < columns; ++column) {
    if (logits[column] < floor) continue;
    const Ranked candidate = {logits[column] / sampling.temperature, column};
    sampling.top_p < 1.0 ? candidates.push_back(candidate) : offer(candidate);
  }
  if (sampling.top_p < 1.0) keep_nucleus(candidates, sampling.top_p);
  for (const Ranked& candidate : candidates) offer(candidate);
  return winners.take();
}

int sample_column(const float* logits, int columns, const int* ids, const Sampling& sampling,
                  uint64_t position) {
  if (sampling.temperature == 0.0) return argmax_column(logits, columns);
  return best_columns(logits, columns, ids, sampling, position, 1).front().column;
}

}  // namespace specee
