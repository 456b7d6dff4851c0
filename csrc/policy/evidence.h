// What is known of one exit layer's drafts: specee/policies/evidence.py, operation by operation, and when it
// was wrong.
#pragma once

#include "policy/round_costs.h"

namespace specee::policy {

// Drafts of one layer in a round: whether each was right, and how sure it was.
struct Drafts {
  const bool* matches;
  const double* confidences;
  int count;
};

class Evidence {
 public:
  // Drafts of round `now`, which is not before any earlier one.
  void add(const Drafts& drafts, double now);
  // Whether there are ten times the misses that are to be expected. One may be chance: it takes a second one,
  // now or the time before, with nothing right between, or that none of many was right. `drafted`: how many
  // there were, these among them.
  bool surprised_by(const Drafts& drafts, int drafted) const;
  // Make it worth `most` drafts if it is worth more, or `factor` times what it is; rates stay what they are.
  void cap(double most);
  void fade(double factor);

  bool older_than(double now) const { return round_ < now; }
  // How many drafts' worth it is by round `now`.
  double weight(double now) const;
  // Share of drafts that are right, with some doubt.
  double rate() const;
  // DEL's: halfway between the mean confidence of hits and that of misses.
  double threshold() const;
  // By whether the threshold was reached. `sure`: the share that does.
  Rates acceptance(double& sure) const;

 private:
  double hits_ = 0, misses_ = 0;
  double hits_trust_ = 0, misses_trust_ = 0;  // sums of confidences
  double hits_sure_ = 0, misses_sure_ = 0;    // those that reached the threshold of their time
  double round_ = 0;
  bool failed_ = false;  // whether none of the latest drafts was right
};

}  // namespace specee::policy
