#include "policy/exit_choice.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "specee/errors.h"

namespace specee::policy {
namespace {

constexpr double kEnough = 1.0;  // drafts' worth of evidence under which a layer is no longer believed
constexpr double kFresh = 2.5;   // and under which it is worth another look
constexpr double kMost = 40.0;   // and as many are enough
// What a surprise leaves of what the layer has shown, and of what the others have.
constexpr double kSurprised = 0.5, kSurprisedOthers = 0.25;
constexpr double kMostly = 0.95;  // drafts that are sure, when there is hardly one to stop after

// So many of them, evenly.
void add_spread(const std::vector<int>& layers, int most, std::vector<int>& chosen) {
  const int all = static_cast<int>(layers.size()), count = std::min(most, all);
  for (int i = 0; i < count; ++i)
    chosen.push_back(count == all ? layers[i] : layers[all * (2 * i + 1) / (2 * count)]);
}

// What may be hoped of a layer that has shown this.
double bound_of(double rate, double seen) {
  return rate + std::sqrt(rate * (1 - rate) / (seen + 1)) + 0.5 / (seen + 1);
}

}  // namespace

ExitChoice::ExitChoice(const std::vector<std::pair<int, double>>& heads) {
  for (const auto& [layer, head] : heads) {
    if (layer < 1 || (!candidates_.empty() && layer <= candidates_.back().layer))
      throw ConfigurationError(
          "exit layers that can draft ascend from 1, and layer " + std::to_string(layer) +
          (candidates_.empty() ? " is the first"
                               : " comes after " + std::to_string(candidates_.back().layer)) +
          ": name each once, the shallowest first");
    candidates_.push_back({layer, head, {}, {}});
  }
}

const ExitChoice::Candidate& ExitChoice::candidate(int layer) const {
  const auto found = std::lower_bound(candidates_.begin(), candidates_.end(), layer,
                                      [](const Candidate& one, int wanted) { return one.layer < wanted; });
  if (found == candidates_.end() || found->layer != layer)
    throw ConfigurationError("layer " + std::to_string(layer) + " is none of the " +
                             std::to_string(candidates_.size()) + " that can draft" + span() +
                             ": learn of those that the choice was made with");
  return *found;
}

std::string ExitChoice::span() const {
  if (candidates_.empty()) return "";
  return ", from " + std::to_string(candidates_.front().layer) + " to " +
         std::to_string(candidates_.back().layer);
}

ExitChoice::Candidate& ExitChoice::candidate(int layer) {
  return const_cast<Candidate&>(static_cast<const ExitChoice*>(this)->candidate(layer));
}

bool ExitChoice::learn(int layer, const Drafts& drafts, double now, int drafted) {
  Candidate& own = candidate(layer);
  if (!std::isfinite(now))
    throw ConfigurationError("round " + std::to_string(now) + " is no time: rounds are finite numbers");
  if (!own.evidence) own.evidence.emplace();
  own.evidence->cap(kMost);
  const bool surprise = own.evidence->surprised_by(drafts, drafted);
  if (surprise)  // then what was known of all layers is of another text
    for (Candidate& one : candidates_)
      if (one.evidence && one.evidence->older_than(now))
        one.evidence->fade(&one == &own ? kSurprised : kSurprisedOthers);
  own.evidence->add(drafts, now);
  own.plan.reset();
  known_ = false;
  return surprise;
}

std::optional<ExitPlan> ExitChoice::best(const Costs& costs, double now) {
  if (costs != costs_) {
    costs_ = costs;
    for (Candidate& one : candidates_) one.plan.reset();
    known_ = false;
  }
  if (!known_) {
    const ExitPlan* most = nullptr;
    for (Candidate& one : candidates_) {
      if (!one.evidence) continue;
      if (!one.plan) one.plan = plan_of(one, *costs);
      if (most == nullptr || one.plan->value > most->value) most = &*one.plan;
    }
    best_.reset();
    if (most != nullptr) best_ = stopped(*most, *costs);
    known_ = true;
  }
  if (best_ && best_->value > 1 && candidate(best_->layer).evidence->weight(now) < kEnough) {
    forget(now);
    return best(costs, now);
  }
  return best_;
}

ExitPlan ExitChoice::plan_of(const Candidate& candidate, const RoundCosts& costs) const {
  const Choice choice = costs.best(candidate.layer, candidate.head, candidate.evidence->rate());
  return {candidate.layer, choice.length, 0.0, choice.value};
}

// The same layer with DEL's confidence threshold, where that is worth more.
ExitPlan ExitChoice::stopped(const ExitPlan& plan, const RoundCosts& costs) const {
  const Candidate& own = candidate(plan.layer);
  double sure = 0;
  const Rates rates = own.evidence->acceptance(sure);
  if (sure > kMostly) return plan;
  const Choice choice = costs.best_stopped(plan.layer, own.head, rates);
  if (choice.value <= plan.value) return plan;
  return {plan.layer, choice.length, own.evidence->threshold(), choice.value};
}

void ExitChoice::forget(double now) {
  for (Candidate& one : candidates_)
    if (one.evidence && one.evidence->weight(now) < kEnough) {
      one.evidence.reset();
      one.plan.reset();
      known_ = false;
    }
}

double ExitChoice::known_of(int layer, double now) const {
  const Candidate& one = candidate(layer);
  return one.evidence ? one.evidence->weight(now) : 0.0;
}

std::vector<int> ExitChoice::worth_a_look(const Costs& costs, double now, double at_least, int most) {
  forget(now);
  const std::optional<ExitPlan> best = this->best(costs, now);
  const int known = best && best->value > kNear ? best->layer : 0;
  const Question question = {*costs, now, at_least};
  const std::vector<int> able = hopes(question, known);
  if (!best) return deeper_each_time(able, most);
  const auto beyond = std::upper_bound(able.begin(), able.end(), best->layer);
  const std::vector<int> deeper(beyond, able.end());
  if (known == 0) return deeper_each_time(deeper.empty() ? able : deeper, most);
  tried_ = 0;
  const std::vector<int> shallower(able.begin(), std::lower_bound(able.begin(), able.end(), best->layer));
  std::vector<int> chosen;
  if (most > 1 && first_is_forgotten(known, shallower, question)) chosen.push_back(candidates_[0].layer);
  most -= static_cast<int>(chosen.size());
  add_spread(shallower, most - most / 2, chosen);
  add_spread(deeper, most / 2, chosen);
  return chosen;
}

// Where the latest look found nothing, at what lies beyond; then at all of them anew.
std::vector<int> ExitChoice::deeper_each_time(const std::vector<int>& able, int most) {
  const std::vector<int> beyond(std::upper_bound(able.begin(), able.end(), tried_), able.end());
  std::vector<int> chosen;
  add_spread(beyond.empty() ? able : beyond, most, chosen);
  tried_ = chosen.empty() ? 0 : chosen.back();
  return chosen;
}

// Whether layer 1 can draft, is not among `others`, not `below`, not known, and could pay.
bool ExitChoice::first_is_forgotten(int below, const std::vector<int>& others,
                                    const Question& question) const {
  const Candidate& first = candidates_[0];
  if (first.layer > 1 || first.layer >= below || (!others.empty() && others[0] == first.layer)) return false;
  const bool known = first.evidence && first.evidence->weight(question.now) >= kFresh;
  return !known && question.hopeful(first, 1.0);
}

// Layers to be looked at that may be worth that much, ascending: what is known of a layer of late bounds
// those below it, and the last layer is never wrong. Under a layer that is `known` to be good they end at the
// first that is known not to be.
std::vector<int> ExitChoice::hopes(const Question& question, int known) const {
  std::vector<int> able, unseen;  // unseen: places of candidates under one bound; both descend
  double bound = 1.0;
  for (int i = static_cast<int>(candidates_.size()) - 1; i >= 0; --i) {
    const Candidate& one = candidates_[i];
    const double seen = one.evidence ? one.evidence->weight(question.now) : 0.0;
    if (!one.evidence || seen < kFresh) {
      unseen.push_back(i);
      continue;
    }
    add_hopeful(unseen, question, bound, able);
    unseen.clear();
    bound = std::min(bound, bound_of(one.evidence->rate(), seen));
    if (one.layer < known && !question.hopeful(one, bound)) break;
  }
  add_hopeful(unseen, question, bound, able);
  std::reverse(able.begin(), able.end());
  return able;
}

// Those of `unseen` from the first on that is worth enough: under one bound shallower layers are worth more,
// since they cost less.
void ExitChoice::add_hopeful(const std::vector<int>& unseen, const Question& question, double rate,
                             std::vector<int>& able) const {
  const auto hopeful = [&](size_t i) {
    return question.hopeful(candidates_[static_cast<size_t>(unseen[i])], rate);
  };
  if (unseen.empty() || !hopeful(unseen.size() - 1)) return;
  // By halves; not by a function of the library, which may ask in another order: where heads differ, deeper
  // ones may be cheaper, and what is found depends on the questions.
  size_t from = 0, to = unseen.size() - 1;
  while (from < to) {
    const size_t middle = (from + to) / 2;
    if (hopeful(middle))
      to = middle;
    else
      from = middle + 1;
  }
  for (; from < unseen.size(); ++from) able.push_back(candidates_[static_cast<size_t>(unseen[from])].layer);
}

}  // namespace specee::policy
