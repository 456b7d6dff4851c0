// Decisions about exit layers over random texts: always something that a round can do. That they are the
// right ones is what tests/unit/test_native_exits.py shows.
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "policy/exit_drafts.h"
#include "specee/errors.h"
#include "tests.h"

namespace native {
namespace {

using specee::policy::ExitDrafts;
using specee::policy::kLongest;
using specee::policy::RoundCosts;

constexpr int kPositions = 4, kMostLooks = 4;
constexpr double kGain = 1.03;

std::shared_ptr<const RoundCosts> some_costs(int layers, Random& random) {
  std::vector<double> layer, head, looks;
  for (int rows = 0; rows <= kLongest + 1; ++rows) {
    layer.push_back(rows * random.uniform(1e-5f, 1e-4f));
    head.push_back(rows * random.uniform(1e-4f, 1e-3f));
  }
  for (int at = 0; at <= kMostLooks + 1; ++at) looks.push_back(at * random.uniform(0.0f, 1e-3f));
  return std::make_shared<RoundCosts>(layers, random.between(1, 4), layer, head, random.uniform(0.0f, 1e-4f),
                                      looks);
}

ExitDrafts::Heads some_heads(int layers, Random& random) {
  ExitDrafts::Heads heads;
  for (int layer = 1; layer < layers; ++layer)
    if (random.chance(70)) heads.emplace_back(layer, random.uniform(0.1f, 1.0f));
  return heads;
}

struct SomeDrafts {
  bool matches[kLongest];
  double confidences[kLongest];
  int count;

  explicit SomeDrafts(Random& random) : count(random.between(0, kLongest)) {
    for (int i = 0; i < count; ++i) {
      matches[i] = random.chance(70);
      confidences[i] = random.uniform(0.0f, 1.0f);
    }
  }
  specee::policy::Drafts view() const { return {matches, confidences, count}; }
};

void check_draft(const ExitDrafts::Draft& draft, const std::set<int>& able) {
  const auto& [layer, length, stop_below, value] = draft.plan;
  CHECK(able.count(layer) == 1, "layer " + std::to_string(layer));
  CHECK(length >= 1 && length <= kLongest, std::to_string(length) + " drafts");
  CHECK(stop_below >= 0 && stop_below <= 1, std::to_string(stop_below));
  CHECK(value > 1, std::to_string(value));
}

void check_look(const ExitDrafts::Look& look, const std::set<int>& able) {
  CHECK(!look.layers.empty() && look.layers.size() <= kMostLooks, std::to_string(look.layers.size()));
  for (size_t i = 0; i < look.layers.size(); ++i) {
    CHECK(able.count(look.layers[i]) == 1, "layer " + std::to_string(look.layers[i]));
    CHECK(i == 0 || look.layers[i - 1] < look.layers[i], "layers that do not ascend");
  }
}

}  // namespace

void test_policy(Random& random) {
  const int layers = random.between(2, 40);
  const std::vector<std::pair<bool, ExitDrafts::Heads>> kinds = {{false, some_heads(layers, random)},
                                                                 {true, some_heads(layers, random)}};
  std::set<int> able[2];
  for (const auto& [adapted, heads] : kinds)
    for (const auto& head : heads) able[adapted].insert(head.first);
  ExitDrafts exits(kinds, kPositions, kGain);
  std::shared_ptr<const RoundCosts> costs[2] = {some_costs(layers, random), some_costs(layers, random)};
  double now = 0;
  int length = random.between(1, 50);
  for (int round = 0; round < 200; ++round) {
    if (random.chance(2)) costs[0] = some_costs(layers, random);  // the old ones are gone
    const auto& judged = costs[random.chance(20)];
    const auto draft = exits.draft(judged, now, random.uniform(1.0f, 1.5f));
    if (draft) check_draft(*draft, able[draft->adapted]);
    const specee::policy::Text text = {length, random.between(1, 4000), random.chance(10)};
    const auto look = exits.look(judged, *costs[1], text, now, draft ? draft->plan.value : 0.0);
    if (look) check_look(*look, able[look->adapted]);
    const int tokens = random.between(1, 18);
    if (look) exits.saw(tokens);
    length += tokens;
    now += random.chance(95) ? tokens / 4.0 : 80.0;
    const bool adapted = random.chance(50);
    const SomeDrafts drafts(random);
    const int layer = random.between(1, layers);
    if (able[adapted].count(layer) == 0)
      CHECK_THROWS(specee::ConfigurationError, exits.see(adapted, layer, drafts.view(), now, drafts.count));
    else if (random.chance(50))
      exits.learn(adapted, layer, drafts.view(), now, drafts.count);
    else
      exits.see(adapted, layer, drafts.view(), now, drafts.count);
    exits.note(random.uniform(0.0f, 1e-2f), random.uniform(0.0f, 1e-4f), random.chance(50));
  }
}

}  // namespace native
