#include "policy/exit_drafts.h"

#include <algorithm>
#include <string>

#include "specee/errors.h"

namespace specee::policy {
namespace {

constexpr double kBetter = 1.02;  // what a look has to promise over what is drafted already
// Rounds between looks: where drafting pays, or nearly; and elsewhere, ever longer.
constexpr int kShortPause = 4, kPause = 8, kLongestPause = 128;

}  // namespace

ExitDrafts::ExitDrafts(const std::vector<std::pair<bool, Heads>>& kinds, int positions, double gain)
    : positions_(positions), gain_(gain), pause_(kPause) {
  if (positions < 1 || !(gain >= 1))
    throw ConfigurationError(
        "looks are at one position or more, and drafting has to promise 1 or more; got " +
        std::to_string(positions) + " and " + std::to_string(gain));
  for (const auto& [adapted, heads] : kinds) {
    for (const Kind& one : kinds_)
      if (one.adapted == adapted)
        throw ConfigurationError(std::string(adapted ? "adapted heads" : "the model's own heads") +
                                 " are given twice: name each kind once, with all its layers");
    kinds_.push_back({adapted, ExitChoice(heads)});
  }
}

const ExitDrafts::Kind& ExitDrafts::kind(bool adapted) const {
  for (const Kind& one : kinds_)
    if (one.adapted == adapted) return one;
  throw ConfigurationError(std::string("no exit layer drafts with ") +
                           (adapted ? "an adapted head" : "the model's own head") + ": there are " +
                           std::to_string(kinds_.size()) +
                           " kinds of heads here; name one that these drafts were made with");
}

std::optional<ExitDrafts::Draft> ExitDrafts::draft(const Costs& costs, double now, double beside) {
  std::optional<Draft> best;
  for (Kind& one : kinds_) {
    const std::optional<ExitPlan> plan = one.choice.best(costs, now);
    if (plan && (!best || plan->value > best->plan.value)) best = Draft{one.adapted, *plan};
  }
  const bool near = best && best->plan.value > kNear * beside;
  if (near != near_) {  // more is to be found: beside it, or elsewhere
    look_at_ = now;
    pause_ = kPause;
  }
  near_ = near;
  drafting_ = best && best->plan.value > (drafting_ ? 1.0 : gain_);
  if (!drafting_) best.reset();
  return best;
}

std::optional<ExitDrafts::Look> ExitDrafts::look(const Costs& costs, const RoundCosts& seconds,
                                                 const Text& text, double now, double value) {
  if (now < look_at_ || text.length < looked_ + positions_) return {};
  const int most = affordable(seconds, text);
  if (most == 0) {
    look_at_ = now + kShortPause;
    return {};
  }
  wait(now);
  for (const bool latest : {false, true})  // the kind that the latest look was at comes last
    for (Kind& one : kinds_) {
      if ((one.adapted == looked_adapted_) != latest) continue;
      std::vector<int> layers = one.choice.worth_a_look(costs, now, std::max(gain_, kBetter * value), most);
      if (layers.empty()) continue;
      looked_ = text.length;
      looked_adapted_ = one.adapted;
      return Look{one.adapted, std::move(layers)};
    }
  return {};
}

// Where drafting pays, or nearly, the budget is what limits looks.
void ExitDrafts::wait(double now) {
  look_at_ = now + (near_ ? kShortPause : pause_);
  if (!near_) pause_ = std::min(2 * pause_, kLongestPause);
}

// How many layers the budget allows a look at; within a prompt the full model has to be asked too.
int ExitDrafts::affordable(const RoundCosts& seconds, const Text& text) const {
  const double left = budget_.left(text.remaining * seconds.plain() / seconds.sequences(), near_);
  for (int layers = seconds.most_looks(); layers > 0; --layers)
    if (seconds.looks(layers + text.fresh) <= left) return layers;
  return 0;
}

bool ExitDrafts::learn(bool adapted, int layer, const Drafts& drafts, double now, int drafted) {
  const bool surprise = see(adapted, layer, drafts, now, drafted);
  if (surprise) look_at_ = now;
  return surprise;
}

bool ExitDrafts::see(bool adapted, int layer, const Drafts& drafts, double now, int drafted) {
  return const_cast<Kind&>(kind(adapted)).choice.learn(layer, drafts, now, drafted);
}

double ExitDrafts::known_of(bool adapted, int layer, double now) const {
  return kind(adapted).choice.known_of(layer, now);
}

}  // namespace specee::policy
