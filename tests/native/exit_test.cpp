// Early exits of a whole engine: rows beside others leave as they do alone, guesses follow the text, and what
// waited is completed as if it had never left.
#include <algorithm>
#include <cstring>
#include <vector>

#include "specee/errors.h"
#include "tests.h"
#include "tiny_drafter.h"
#include "tiny_engine.h"

namespace native {
namespace {

using specee::Drafter;
using specee::DrafterColumn;
using specee::Engine;
using specee::Exit;
using specee::ExitCall;
using specee::ExitPredictors;
using specee::Sequence;

constexpr int kCapacity = 48;

struct Text {
  std::unique_ptr<Sequence> sequence;
  std::unique_ptr<DrafterColumn> column;
};

std::vector<int> all_layers(const Engine& engine) {
  std::vector<int> layers;
  for (int layer = 1; layer <= engine.config().num_layers; ++layer) layers.push_back(layer);
  return layers;
}

// All positions complete but the newest.
Text started(Engine& engine, Drafter& drafter, const std::vector<int>& tokens) {
  Text text{engine.sequence(kCapacity, specee::Dtype::f32, true),
            engine.drafter_column(drafter, kCapacity, specee::Dtype::f32, true)};
  text.sequence->keep(all_layers(engine), kCapacity);
  text.sequence->append(tokens);
  engine.advance({{text.sequence.get(), {text.sequence->length() - 2}}}, engine.config().num_layers, [] {});
  return text;
}

std::vector<int> tokens_of(const Sequence& sequence) {
  std::vector<int> tokens;
  for (int slot = 0; slot < sequence.length(); ++slot) tokens.push_back(sequence.row(slot).token);
  return tokens;
}

// Keys, values and states of every complete position are those of a text that went straight through.
void check_completed(Engine& engine, Drafter& drafter, const Text& text) {
  const Sequence& sequence = *text.sequence;
  const Text plain = started(engine, drafter, tokens_of(sequence));
  const size_t bytes = static_cast<size_t>(engine.config().hidden_size) * sizeof(float);
  for (int slot = 0; slot + 1 < sequence.length(); ++slot)
    for (const int layer : all_layers(engine))
      CHECK(
          std::memcmp(sequence.kept_state(slot, layer), plain.sequence->kept_state(slot, layer), bytes) == 0,
          "a row that waited has other states than one that did not");
}

void check_rank(Engine& engine, Drafter& drafter, const Text& text, int count) {
  const int slot = text.sequence->length() - 1;
  const auto fresh = engine.drafter_column(drafter, kCapacity, specee::Dtype::f32, true);
  const auto with = [&](DrafterColumn* column) {
    return engine.rank(drafter, {{text.sequence.get(), column, slot}}, count, nullptr);
  };
  CHECK(with(text.column.get()) == with(fresh.get()), "guesses depend on what was asked before");
}

// Nodes of a tree are asked about together as they are alone, whatever their branches are.
void check_nodes(Engine& engine, Drafter& drafter, const ExitPredictors& predictors, int candidates,
                 const std::vector<int>& tokens, Random& random) {
  const int vocab = engine.config().vocab_size;
  const Text text = started(engine, drafter, tokens), other = started(engine, drafter, tokens);
  std::vector<int> nodes, parents, slots{text.sequence->length() - 1};
  std::vector<std::vector<int>> known(1);
  for (int node = 0, count = random.between(0, 20); node < count; ++node) {
    nodes.push_back(random.between(0, vocab - 1));
    parents.push_back(random.between(-1, node - 1));
    known.emplace_back();
  }
  for (std::vector<int>& row : known)
    for (int first = random.between(0, vocab - 1), at = 0; at < candidates; ++at)
      row.push_back((first + at) % vocab);
  const std::vector<int> added = text.sequence->branch(nodes, &parents, slots[0]);
  CHECK(other.sequence->branch(nodes, &parents, slots[0]) == added, "slots differ");
  slots.insert(slots.end(), added.begin(), added.end());
  std::vector<int> rows(slots.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int>(i);
  const auto together = engine.exit_rows(predictors, known), alone = engine.exit_rows(predictors, known);
  specee::Sampling sampling;
  if (random.chance(40)) sampling.temperature = 0.9;
  const auto ask = [&](specee::ExitRows& of, int layer, const Text& in, const std::vector<int>& named,
                       const std::vector<int>& which) {
    return engine.ask_exits(of, layer, {{in.sequence.get(), named, which, sampling}});
  };
  for (int layer = 1; layer < engine.config().num_layers; ++layer) {
    engine.advance({{text.sequence.get(), slots}}, layer, [] {});
    const std::vector<specee::Answer> answers = ask(*together, layer, text, slots, rows);
    for (size_t i = 0; i < slots.size(); ++i) {
      engine.advance({{other.sequence.get(), {slots[i]}}}, layer, [] {});
      const specee::Answer one = ask(*alone, layer, other, {slots[i]}, {rows[i]})[0];
      CHECK(one.chance == answers[i].chance && one.token == answers[i].token, "an answer depends on others");
    }
    CHECK_THROWS(specee::RowError, ask(*together, layer + 1, text, slots, rows));
    CHECK_THROWS(specee::RowError, ask(*together, layer, text, {slots[0]}, {static_cast<int>(rows.size())}));
    CHECK_THROWS(specee::RowError, ask(*together, layer, text, {slots[0]}, {}));
  }
  known[0].pop_back();
  CHECK_THROWS(specee::RowError, engine.exit_rows(predictors, known));
}

}  // namespace

void test_exits(const std::string& isa, Random& random) {
  specee::ModelConfig config = tiny_config(random);
  config.max_position = kCapacity;
  const int threads = random.between(1, std::min(3, current().threads));
  const auto engine = tiny_engine(config, tiny_types(config, random), isa, threads, random.bits());
  const auto drafter = some_drafter(*engine, {config.num_layers}, random);
  const int candidates = std::min({random.between(1, specee::kMaxCandidates), config.vocab_size});
  const auto predictors = some_predictors(*engine, candidates, random);
  std::vector<Text> texts;
  for (int i = random.between(1, 4); i > 0; --i) {
    std::vector<int> tokens(static_cast<size_t>(random.between(2, 12)));
    for (int& token : tokens) token = random.between(0, config.vocab_size - 1);
    texts.push_back(started(*engine, *drafter, tokens));
  }
  const auto nothing = [] {};
  for (const Text& text : texts)
    check_nodes(*engine, *drafter, *predictors, candidates, tokens_of(*text.sequence), random);
  for (int step = 0; step < 6; ++step) {
    std::vector<ExitCall> calls;
    std::vector<char> complete;
    for (const Text& text : texts) {
      complete.push_back(text.sequence->frontier().back() == text.sequence->length() - 1);
      std::vector<int> layers;
      for (int layer = 1; layer < config.num_layers; ++layer)
        if (random.chance(70)) layers.push_back(layer);
      specee::Sampling sampling;
      if (random.chance(40)) sampling.temperature = 0.9;
      sampling.seed = random.bits();
      calls.push_back({text.sequence.get(), text.column.get(), text.sequence->length() - 1, layers,
                       random.uniform(-0.2f, 1.0f), sampling});
      check_rank(*engine, *drafter, text, candidates);
    }
    const bool confirm = random.chance(60);
    specee::ExitSeconds seconds;
    const std::vector<Exit> exits =
        engine->leave_early(*drafter, *predictors, calls, nullptr, confirm, nothing, seconds);
    for (size_t i = 0; i < texts.size(); ++i) {
      Text alone = started(*engine, *drafter, tokens_of(*texts[i].sequence));
      ExitCall call = calls[i];
      call.sequence = alone.sequence.get();
      call.column = alone.column.get();
      specee::ExitSeconds unused;
      const Exit other =
          engine->leave_early(*drafter, *predictors, {call}, nullptr, confirm, nothing, unused)[0];
      // Behind a row that waits the block goes by guesses; alone that row was complete.
      if (complete[i])
        CHECK(exits[i].layer == other.layer && exits[i].token == other.token &&
                  exits[i].confidence == other.confidence,
              "a row leaves otherwise beside others");
      CHECK(!confirm || exits[i].layer > 0, "a row that is to be confirmed came to nothing");
      CHECK(exits[i].layer == 0 || calls[i].sequence->row(calls[i].slot).done == exits[i].layer,
            "a row waits elsewhere than where it left");
      const int token = exits[i].layer > 0 ? static_cast<int>(exits[i].token) : 0;
      texts[i].sequence->append({token});
    }
    for (const Text& text : texts) {
      if (random.chance(50)) continue;
      engine->advance({{text.sequence.get(), {text.sequence->length() - 2}}}, config.num_layers, nothing);
      check_completed(*engine, *drafter, text);
    }
  }
  ExitCall wrong{texts.front().sequence.get(),
                 texts.front().column.get(),
                 texts.front().sequence->length() - 1,
                 {config.num_layers},
                 0.5f,
                 {}};
  specee::ExitSeconds seconds;
  CHECK_THROWS(specee::RowError,
               engine->leave_early(*drafter, *predictors, {wrong}, nullptr, true, nothing, seconds));
  float score = 0.0f;
  CHECK_THROWS(specee::RowError, engine->score({{wrong.sequence, {0}}}, {1}, {{0, 0}}, &score));
  CHECK_THROWS(specee::RowError, engine->score({{wrong.sequence, {0}}}, {1}, {{config.vocab_size}}, &score));
  CHECK_THROWS(specee::RowError, engine->score({{wrong.sequence, {0}}}, {1}, {}, &score));
}

}  // namespace native
