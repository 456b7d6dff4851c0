#include "policy/round_costs.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "specee/errors.h"

namespace specee::policy {
namespace {

using Lengths = std::array<double, kLongest>;  // by drafts, from 1

// 1 + share + ... + share^(n-1) for n = 1 ... kLongest, by 64ths.
std::array<Lengths, kSteps + 1> make_sums() {
  std::array<Lengths, kSteps + 1> all;
  for (int step = 0; step <= kSteps; ++step) {
    const double share = static_cast<double>(step) / kSteps;
    double power = 1.0;
    all[step][0] = 1.0;
    for (int n = 1; n < kLongest; ++n) {
      power *= share;
      all[step][n] = all[step][n - 1] + power;
    }
  }
  return all;
}

const Lengths& sums_of(int step) {
  static const std::array<Lengths, kSteps + 1> all = make_sums();
  return all[step];
}

// All lengths: where more rows cost a step at once, the value may rise again after it has fallen.
Choice most(const Lengths& tokens, const double* seconds, double plain) {
  int at = 0;
  double best = tokens[0] / seconds[0];
  for (int n = 1; n < kLongest; ++n) {
    const double value = tokens[n] / seconds[n];
    if (value > best) best = value, at = n;
  }
  return {at + 1, best * plain};
}

// What a round gives whose first draft is right in `first` of all cases, and the next ones by `step`.
Lengths tokens_of(double first, int step) {
  const Lengths& sums = sums_of(step);
  Lengths tokens;
  for (int n = 0; n < kLongest; ++n) tokens[n] = 1 + first * sums[n];
  return tokens;
}

}  // namespace

int steps_of(double share) { return static_cast<int>(std::nearbyint(share * kSteps)); }

RoundCosts::RoundCosts(int layers, int sequences, const std::vector<double>& layer,
                       const std::vector<double>& head, double step, const std::vector<double>& looks)
    : layers_(layers), sequences_(sequences), step_(step), looks_(looks) {
  if (layer.size() != layer_.size() || head.size() != head_.size() || looks.size() < 2 || sequences < 1)
    throw ConfigurationError(
        "costs of rounds are of one sequence or more, for 0 to " + std::to_string(kLongest + 1) +
        " rows of each, and for looks at none and more; there are " + std::to_string(sequences) +
        " sequences, " + std::to_string(layer.size()) + " rows of layers, " + std::to_string(head.size()) +
        " of heads and " + std::to_string(looks.size()) + " looks");
  std::copy(layer.begin(), layer.end(), layer_.begin());
  std::copy(head.begin(), head.end(), head_.begin());
  plain_ = layers * layer_[1] + head_[1] + step;
}

RoundCosts::Seconds RoundCosts::rounds(int layer, double head) const {
  const double each = layer > 0 ? layer * layer_[1] + head * head_[1] : 0.0;
  const double below = layer * layer_[1] + step_;
  const int deep = layers_ - layer;
  Seconds seconds;
  for (int drafts = 0; drafts <= kLongest; ++drafts)
    seconds[drafts] = below + drafts * each + deep * layer_[drafts + 1] + head_[drafts + 1];
  return seconds;
}

Choice RoundCosts::best(int layer, double head, double rate) const {
  const int step = steps_of(rate);
  return most(tokens_of(static_cast<double>(step) / kSteps, step), rounds(layer, head).data() + 1, plain_);
}

Choice RoundCosts::best_stopped(int layer, double head, const Rates& rates) const {
  const Seconds whole = rounds(layer, head);
  if (rates.sure == kSteps)
    return most(tokens_of(static_cast<double>(rates.kept) / kSteps, rates.kept), whole.data() + 1, plain_);
  const Lengths& made = sums_of(rates.sure);
  Lengths stopped;
  for (int n = 0; n < kLongest; ++n) {
    const int drafts = static_cast<int>(made[n]);
    stopped[n] = whole[drafts] + (made[n] - drafts) * (whole[drafts + 1] - whole[drafts]);
  }
  return most(tokens_of(static_cast<double>(rates.right) / kSteps, rates.kept), stopped.data(), plain_);
}

}  // namespace specee::policy
