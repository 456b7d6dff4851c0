#include "policy/evidence.h"

#include <algorithm>
#include <cmath>

namespace specee::policy {
namespace {

constexpr double kDecay = 0.95;  // what a count is worth one round later, as DEL has it
constexpr int kSurprise = 10;    // times the misses that were to be expected
constexpr int kLong = 4;         // drafts of a round: where as many come for nothing, one round is enough
constexpr double kPrior = 0.5;   // drafts' worth of doubt, half of them right

bool any_right(const Drafts& drafts) {
  return std::find(drafts.matches, drafts.matches + drafts.count, true) != drafts.matches + drafts.count;
}

}  // namespace

void Evidence::add(const Drafts& drafts, double now) {
  if (now != round_) {
    fade(std::pow(kDecay, now - round_));
    round_ = now;
  }
  if (drafts.count > 0) failed_ = !any_right(drafts);
  const double least = threshold();
  for (int i = 0; i < drafts.count; ++i) {
    const double confidence = drafts.confidences[i];
    const double sure = confidence >= least ? 1.0 : 0.0;
    (drafts.matches[i] ? hits_ : misses_) += 1;
    (drafts.matches[i] ? hits_trust_ : misses_trust_) += confidence;
    (drafts.matches[i] ? hits_sure_ : misses_sure_) += sure;
  }
}

bool Evidence::surprised_by(const Drafts& drafts, int drafted) const {
  const auto misses = std::count(drafts.matches, drafts.matches + drafts.count, false);
  if (misses < 2 && (any_right(drafts) || !(failed_ || drafted >= kLong))) return false;
  return static_cast<double>(misses) > kSurprise * drafts.count * (1 - rate());
}

void Evidence::cap(double most) {
  const double seen = hits_ + misses_;
  if (seen > most) fade(most / seen);
}

void Evidence::fade(double factor) {
  for (double* count : {&hits_, &misses_, &hits_trust_, &misses_trust_, &hits_sure_, &misses_sure_})
    *count *= factor;
}

double Evidence::weight(double now) const {
  const double seen = hits_ + misses_, age = now - round_;
  return age != 0 ? seen * std::pow(kDecay, age) : seen;
}

double Evidence::rate() const { return (hits_ + kPrior / 2) / (hits_ + misses_ + kPrior); }

// With no hit yet those are taken to be certain, with no miss yet those to be worth nothing.
double Evidence::threshold() const {
  const double hits = hits_ != 0 ? hits_trust_ / hits_ : 1.0;
  const double misses = misses_ != 0 ? misses_trust_ / misses_ : 0.0;
  return (hits + misses) / 2;
}

Rates Evidence::acceptance(double& sure) const {
  const double reached = hits_sure_ + misses_sure_, seen = hits_ + misses_, unsure = seen - reached;
  sure = (reached + kPrior / 2) / (seen + kPrior);
  const double kept = sure * ((hits_sure_ + kPrior / 2) / (reached + kPrior));
  const double right = kept + (1 - sure) * ((hits_ - hits_sure_ + kPrior / 2) / (unsure + kPrior));
  return {steps_of(sure), steps_of(kept), steps_of(right)};
}

}  // namespace specee::policy
