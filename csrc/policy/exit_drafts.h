// Where one sequence drafts with exit layers, of all kinds of heads, and when it looks at which others.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "policy/exit_choice.h"
#include "policy/round_costs.h"
#include "policy/shadow_budget.h"

namespace specee::policy {

// What a decision needs to know of the text: tokens, those that may still come, and whether more than the
// newest one waits to be computed.
struct Text {
  int length, remaining;
  bool fresh;
};

class ExitDrafts {
 public:
  using Costs = ExitChoice::Costs;
  using Heads = std::vector<std::pair<int, double>>;
  struct Draft {
    bool adapted;
    ExitPlan plan;
  };
  struct Look {
    bool adapted;
    std::vector<int> layers;
  };
  // `kinds`: whether heads are adapted, and which there are. A look is at the latest `positions`. `gain`:
  // what drafting has to promise before it begins; to go on, it must not lose. Raises ConfigurationError for
  // a kind that is given twice, and for numbers that cannot be.
  ExitDrafts(const std::vector<std::pair<bool, Heads>>& kinds, int positions, double gain);

  // The exit layer worth most in the next round, if it pays; `beside`: the value of the best there is beside
  // exit layers, plain decoding included.
  std::optional<Draft> draft(const Costs& costs, double now, double beside);
  // Layers to look at in the next round, in which drafts are worth `value`; `seconds` are costs in measured
  // time, as the budget is.
  std::optional<Look> look(const Costs& costs, const RoundCosts& seconds, const Text& text, double now,
                           double value);
  // What came of drafts of round `now`, or of shadows; whether it is a surprise (see ExitChoice). After one
  // of real drafts something else may be right: others are looked at.
  bool learn(bool adapted, int layer, const Drafts& drafts, double now, int drafted);
  bool see(bool adapted, int layer, const Drafts& drafts, double now, int drafted);
  // The round of a look gave so many tokens, which it saw.
  void saw(int tokens) { looked_ += tokens; }
  void note(double seconds, double shadow, bool drafting) { budget_.note(seconds, shadow, drafting); }

  // The round from which there may be a look; whether the best layer known is worth about what is done
  // without it, or more; how many drafts' worth is known of a layer.
  double look_at() const { return look_at_; }
  bool near() const { return near_; }
  double known_of(bool adapted, int layer, double now) const;

 private:
  struct Kind {
    bool adapted;
    ExitChoice choice;
  };
  const Kind& kind(bool adapted) const;
  int affordable(const RoundCosts& seconds, const Text& text) const;
  void wait(double now);

  std::vector<Kind> kinds_;
  int positions_;
  double gain_;
  ShadowBudget budget_;
  bool drafting_ = false, near_ = false;
  double look_at_ = 0;
  int pause_;
  int looked_ = 0;  // length of the text at the latest look
  bool looked_adapted_ = false;
};

}  // namespace specee::policy
