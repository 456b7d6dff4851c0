// Chains and trees of a drafter block: columns that have followed a text through anything draft as new ones
// do, a tree is within its limits, and with one child a node it is the chain.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "cpu/engine.h"
#include "specee/errors.h"
#include "tests.h"
#include "tiny_drafter.h"
#include "tiny_engine.h"

namespace native {
namespace {

using specee::Chain;
using specee::ChainCall;
using specee::Drafter;
using specee::DrafterColumn;
using specee::Engine;
using specee::Sequence;
using specee::Tree;
using specee::TreeCall;

constexpr int kCapacity = 160;  // more than two passes of 64 rows
constexpr int kLongest = 6;

struct Text {
  std::unique_ptr<Sequence> sequence;
  std::unique_ptr<DrafterColumn> column;
};

// Appends, and computes all but the newest.
void go_on(Engine& engine, Sequence& sequence, int count, Random& random) {
  std::vector<int> tokens(static_cast<size_t>(count));
  for (int& token : tokens) token = random.between(0, engine.config().vocab_size - 1);
  sequence.append(tokens);
  if (sequence.length() > 1)
    engine.advance({{&sequence, {sequence.length() - 2}}}, engine.config().num_layers, [] {});
}

void move(Engine& engine, Sequence& sequence, Random& random) {
  if (sequence.length() > 3 && random.chance(40)) sequence.rollback(random.between(1, sequence.length() - 2));
  const int room = kCapacity - kLongest - sequence.length();
  const int count = random.chance(20) ? random.between(1, 90) : random.between(1, 4);
  go_on(engine, sequence, std::max(1, std::min(room, count)), random);
}

bool same(const Chain& a, const Chain& b) {
  return a.tokens == b.tokens && a.confidences.size() == b.confidences.size() &&
         std::memcmp(a.confidences.data(), b.confidences.data(), a.confidences.size() * sizeof(float)) == 0;
}

void check_chains(Engine& engine, Drafter& drafter, const std::vector<Text>& texts, Random& random) {
  std::vector<ChainCall> calls;
  for (const Text& text : texts)
    if (text.sequence->kept() > 0 && text.sequence->row(text.sequence->length() - 1).done == 0)
      calls.push_back({text.sequence.get(),
                       text.column.get(),
                       random.between(1, kLongest),
                       random.uniform(0.0f, 0.3f),
                       {}});
  if (calls.empty()) return;
  const std::vector<Chain> together = engine.draft_chains(drafter, calls, nullptr);
  for (size_t i = 0; i < calls.size(); ++i) {
    const Chain again = engine.draft_chains(drafter, {calls[i]}, nullptr)[0];
    CHECK(same(together[i], again), "a chain depends on those beside it");
    const bool whole = calls[i].column->first() == 1;
    ChainCall fresh = calls[i];
    const auto column = engine.drafter_column(drafter, kCapacity, specee::Dtype::f32);
    fresh.column = column.get();
    const Chain anew = engine.draft_chains(drafter, {fresh}, nullptr)[0];
    if (column->first() == calls[i].column->first())
      CHECK(same(together[i], anew), "a column that followed a text drafts otherwise than a new one");
    CHECK(column->first() >= calls[i].column->first() && (!whole || column->length() > 0),
          "a new column knows more than one that followed");
    for (size_t j = 0; j + 1 < anew.tokens.size(); ++j)
      CHECK(anew.confidences[j] >= fresh.stop_below, "a chain went on after a draft that was not sure");
    CHECK(static_cast<int>(anew.tokens.size()) <= fresh.length, "a chain is longer than it may be");
  }
  calls.push_back(calls.front());
  CHECK_THROWS(specee::RowError, engine.draft_chains(drafter, calls, nullptr));
}

bool same(const Tree& a, const Tree& b) {
  return a.tokens == b.tokens && a.parents == b.parents && a.chances == b.chances && a.likely == b.likely;
}

void check_sound(const Tree& tree, const specee::TreeLimits& limits) {
  const size_t count = tree.tokens.size();
  CHECK(count >= 1 && count <= static_cast<size_t>(limits.nodes), "a tree is larger than it may be");
  std::vector<int> depths, children(count + 1, 0);
  for (size_t i = 0; i < count; ++i) {
    const int parent = tree.parents[i];
    CHECK(parent >= -1 && parent < static_cast<int>(i), "a parent comes after its child");
    depths.push_back(parent < 0 ? 1 : depths[static_cast<size_t>(parent)] + 1);
    CHECK(depths.back() <= limits.depth, "a tree is deeper than it may be");
    CHECK(++children[static_cast<size_t>(parent + 1)] <= limits.children, "a node has too many children");
    CHECK(i == 0 || tree.chances[i] <= tree.chances[i - 1], "nodes are not in order");
    CHECK(i == 0 || tree.chances[i] >= limits.stop_below, "a node is too unlikely");
    CHECK(tree.chances[i] >= 0.0f && tree.chances[i] <= 1.0f, "a chance is no chance");
    for (size_t j = 0; j < i; ++j)
      CHECK(tree.parents[j] != parent || tree.tokens[j] != tree.tokens[i], "two siblings are alike");
  }
}

// After the text's end what rank() gives; after nodes as many tokens, for each that has children at least.
void check_likely(Engine& engine, Drafter& drafter, const Tree& tree, const TreeCall& call) {
  CHECK(tree.likely.size() == (call.likely > 0 ? tree.tokens.size() + 1 : 0), "too many nodes, or too few");
  if (call.likely == 0) return;
  const int newest = call.sequence->length() - 1;
  CHECK(
      tree.likely[0] == engine.rank(drafter, {{call.sequence, call.column, newest}}, call.likely, nullptr)[0],
      "what is likely after the text depends on who asks");
  for (const specee::Likely& after : tree.likely)
    CHECK(after.empty() || after.size() == static_cast<size_t>(call.likely), "a node has another number");
  for (const int parent : tree.parents)
    CHECK(!tree.likely[static_cast<size_t>(parent + 1)].empty(),
          "nothing is likely after a node with children");
}

void check_trees(Engine& engine, Drafter& drafter, const std::vector<Text>& texts, Random& random) {
  std::vector<TreeCall> calls;
  for (const Text& text : texts) {
    if (text.sequence->kept() == 0 || text.sequence->row(text.sequence->length() - 1).done != 0) continue;
    const specee::TreeLimits limits = {random.between(1, 60),      random.between(1, 6),
                                       random.between(1, 70),      random.between(1, 8),
                                       random.uniform(0.0f, 0.1f), random.uniform(0.0f, 0.2f)};
    specee::Sampling sampling;
    if (random.chance(50)) sampling.temperature = 0.8;
    if (random.chance(30)) sampling.repetition_penalty = 1.2;
    sampling.seed = random.bits();
    const int likely = random.chance(50) ? 0 : random.between(1, std::min(6, engine.config().vocab_size));
    calls.push_back({text.sequence.get(), text.column.get(), limits, sampling, likely});
  }
  if (calls.empty()) return;
  const std::vector<Tree> together = engine.draft_trees(drafter, calls, nullptr);
  for (size_t i = 0; i < calls.size(); ++i) {
    check_sound(together[i], calls[i].limits);
    check_likely(engine, drafter, together[i], calls[i]);
    CHECK(same(together[i], engine.draft_trees(drafter, {calls[i]}, nullptr)[0]),
          "a tree depends on those beside it");
    const auto column = engine.drafter_column(drafter, kCapacity, specee::Dtype::f32);
    TreeCall fresh = calls[i];
    fresh.column = column.get();
    const Tree anew = engine.draft_trees(drafter, {fresh}, nullptr)[0];
    if (column->first() == calls[i].column->first())
      CHECK(same(together[i], anew), "a column that followed a text grows otherwise than a new one");
    const int length = random.between(1, kLongest);
    fresh.limits = {length, length, 1, 1, 0.0f, 0.0f};
    const Tree line = engine.draft_trees(drafter, {fresh}, nullptr)[0];
    const Chain chain = engine.draft_chains(
        drafter, {{fresh.sequence, fresh.column, length, 0.0f, fresh.sampling}}, nullptr)[0];
    CHECK(line.tokens == chain.tokens, "a tree without branches is not the chain");
    float chance = 1.0f;
    for (size_t j = 0; j < chain.tokens.size(); ++j) {
      chance *= chain.confidences[j];
      CHECK(line.chances[j] == chance, "a chance is not what a chain's confidences make it");
    }
    fresh.limits.width = 0;
    CHECK_THROWS(specee::RowError, engine.draft_trees(drafter, {fresh}, nullptr));
  }
}

}  // namespace

void test_drafter(const std::string& isa, Random& random) {
  specee::ModelConfig config = tiny_config(random);
  config.max_position = kCapacity;
  const specee::WeightTypes types = tiny_types(config, random);
  const int threads = random.between(1, std::min(3, current().threads));
  const auto engine = tiny_engine(config, types, isa, threads, random.bits());
  std::vector<int> layers;
  for (int layer = 1; layer <= config.num_layers; ++layer)
    if (random.chance(60) || (layers.empty() && layer == config.num_layers)) layers.push_back(layer);
  const auto drafter = some_drafter(*engine, layers, random), other = some_drafter(*engine, layers, random);
  std::vector<Text> texts;
  for (int i = random.between(1, 3); i > 0; --i) {
    texts.push_back({engine->sequence(kCapacity, specee::Dtype::f32, true),
                     engine->drafter_column(*drafter, kCapacity, specee::Dtype::f32, true)});
    texts.back().sequence->keep(layers, random.between(1, kCapacity));
    go_on(*engine, *texts.back().sequence, random.between(2, 90), random);
  }
  const ChainCall foreign = {texts.front().sequence.get(), texts.front().column.get(), 1, 0.0f, {}};
  CHECK_THROWS(specee::ConfigurationError, engine->draft_chains(*other, {foreign}, nullptr));
  for (int step = random.between(2, 6); step > 0; --step) {
    check_chains(*engine, *drafter, texts, random);
    check_trees(*engine, *drafter, texts, random);
    for (const Text& text : texts)
      if (random.chance(70)) move(*engine, *text.sequence, random);
  }
}

}  // namespace native
