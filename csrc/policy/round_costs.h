// What rounds of drafts at one exit layer cost and give: the C++ half of specee/policies/objective.py, whose
// formulas these are, operation by operation, so that both come to the same choice.
#pragma once

#include <array>
#include <vector>

namespace specee::policy {

inline constexpr int kLongest = 17;  // most drafts a round, as in DEL
inline constexpr int kSteps = 64;    // rates are told apart to 1/64

// How far to draft, and what comes of it: `value` over plain decoding, which has 1.
struct Choice {
  int length;
  double value;
};

// In 64ths of all drafts: those that are sure, those of them that are accepted, all that are.
struct Rates {
  int sure, kept, right;
};

// To the nearest 64th, halves to the even one.
int steps_of(double share);

// Of one latency table, for sequences that step together and draft alike.
class RoundCosts {
 public:
  // `layer` and `head`: seconds of one layer, and of the head, with the rows of 0, 1, ... kLongest + 1 tokens
  // of each of `sequences`; `step`: seconds of a turn beside them. `looks`: seconds of looks at 0, 1, ...
  // layers, the last one for the full model beside as many as there may be. Raises ConfigurationError for
  // other counts.
  RoundCosts(int layers, int sequences, const std::vector<double>& layer, const std::vector<double>& head,
             double step, const std::vector<double>& looks);

  // The length at which drafts of `layer`, whose head has `head` times the bytes, are worth most: accepted at
  // `rate`; or stopped after the first that is not sure.
  Choice best(int layer, double head, double rate) const;
  Choice best_stopped(int layer, double head, const Rates& rates) const;

  int sequences() const { return sequences_; }
  // Seconds of a step of plain decoding; of a look at so many layers; and how many one may be at.
  double plain() const { return plain_; }
  double looks(int layers) const { return looks_[layers]; }
  int most_looks() const { return static_cast<int>(looks_.size()) - 2; }

 private:
  using Seconds = std::array<double, kLongest + 1>;  // rounds of 0, 1, ... kLongest drafts
  Seconds rounds(int layer, double head) const;

  int layers_, sequences_;
  std::array<double, kLongest + 2> layer_, head_;
  double step_, plain_;
  std::vector<double> looks_;
};

}  // namespace specee::policy
