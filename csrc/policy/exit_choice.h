// Which exit layer one sequence drafts at, how far, and which layers are worth a look: by numbers of this
// sequence alone, no tensors. The same in Python, which tests compare it with, is
// tests/unit/plain_exit_choice.py.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "policy/evidence.h"
#include "policy/round_costs.h"

namespace specee::policy {

// Of what there is beside: a layer worth more comes near to paying, or pays.
inline constexpr double kNear = 0.97;

// Draft at `layer`, `length` tokens at most, until one's confidence is under `stop_below`.
struct ExitPlan {
  int layer, length;
  double stop_below, value;
};

// Of one sequence and one kind of head.
class ExitChoice {
 public:
  using Costs = std::shared_ptr<const RoundCosts>;
  // `heads`: pairs of a layer that can draft, from 1, and its head's bytes over those of the model's own,
  // ascending. Raises ConfigurationError for others.
  explicit ExitChoice(const std::vector<std::pair<int, double>>& heads);

  // Drafts of `layer` in round `now`, real ones or shadows; whether they are a surprise. `drafted`: how many
  // real ones there were, those after the first wrong one included. Raises ConfigurationError for a layer
  // that cannot draft, and for a time that is none.
  bool learn(int layer, const Drafts& drafts, double now, int drafted);
  // The layer worth most among those of which enough is known.
  std::optional<ExitPlan> best(const Costs& costs, double now);
  // At most so many layers that may be worth more than `at_least`, ascending.
  std::vector<int> worth_a_look(const Costs& costs, double now, double at_least, int most);
  // How many drafts' worth is known of a layer.
  double known_of(int layer, double now) const;

 private:
  struct Candidate {
    int layer;
    double head;
    std::optional<Evidence> evidence;
    std::optional<ExitPlan> plan;
  };
  struct Question {  // whether a layer may be worth more than `at_least`
    const RoundCosts& costs;
    double now, at_least;
    bool hopeful(const Candidate& candidate, double rate) const {
      return costs.best(candidate.layer, candidate.head, rate).value > at_least;
    }
  };
  Candidate& candidate(int layer);
  const Candidate& candidate(int layer) const;
  std::string span() const;  // of layers, for messages
  void forget(double now);
  ExitPlan plan_of(const Candidate& candidate, const RoundCosts& costs) const;
  ExitPlan stopped(const ExitPlan& plan, const RoundCosts& costs) const;
  std::vector<int> hopes(const Question& question, int known) const;
  void add_hopeful(const std::vector<int>& unseen, const Question& question, double rate,
                   std::vector<int>& able) const;
  std::vector<int> deeper_each_time(const std::vector<int>& able, int most);
  bool first_is_forgotten(int below, const std::vector<int>& others, const Question& question) const;

  std::vector<Candidate> candidates_;
  Costs costs_;
  std::optional<ExitPlan> best_;
  int tried_ = 0;       // the deepest layer of the latest look, if none was found that comes near to paying
  bool known_ = false;  // whether nothing has changed since the best plan was looked for
};

}  // namespace specee::policy
