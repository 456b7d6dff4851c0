// Whole rounds: the text of plain decoding, whatever is drafted and whoever is beside.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "cpu/engine.h"
#include "specee/errors.h"
#include "tests.h"
#include "tiny_drafter.h"
#include "tiny_engine.h"

namespace native {
namespace {

using specee::DraftKind;
using specee::Engine;
using specee::RoundCall;
using specee::RoundResult;
using specee::Sampling;
using specee::Sequence;

constexpr int kNew = 20;  // tokens

struct Text {
  std::unique_ptr<Sequence> sequence;
  std::unique_ptr<specee::DrafterColumn> column;
  std::unique_ptr<specee::NgramIndex> ngrams;
  std::vector<int> prompt, given;
  std::vector<int64_t> ends;
  Sampling sampling;

  int left() const { return kNew - static_cast<int>(given.size()); }
};

Text some_text(Engine& engine, specee::Drafter& drafter, const std::vector<int>& layers, Random& random) {
  Text text;
  const int vocab = engine.config().vocab_size;
  text.prompt.resize(static_cast<size_t>(random.between(1, 9)));
  for (int& token : text.prompt) token = random.between(0, vocab - 1);
  const int capacity = static_cast<int>(text.prompt.size()) + kNew;
  text.sequence = engine.sequence(capacity, specee::Dtype::f32, true);
  if (random.chance(80)) text.sequence->keep(layers, random.between(1, 9));
  text.sequence->append(text.prompt);
  text.column = engine.drafter_column(drafter, capacity, specee::Dtype::f32, true);
  const int shortest = random.between(1, 2);
  text.ngrams = std::make_unique<specee::NgramIndex>(shortest + random.between(0, 2), shortest);
  if (random.chance(50)) text.ends.push_back(random.between(0, vocab - 1));
  if (random.chance(50)) text.sampling.temperature = 0.9;
  if (random.chance(20)) text.sampling.repetition_penalty = 1.3;
  text.sampling.seed = random.bits();
  return text;
}

std::vector<int> plainly(Engine& engine, const Text& text) {
  const auto sequence = engine.sequence(text.sequence->capacity(), specee::Dtype::f32, true);
  sequence->append(text.prompt);
  const std::vector<Sampling> sampling = {text.sampling};
  std::vector<int> given;
  while (static_cast<int>(given.size()) < kNew) {
    int64_t token = -1;
    engine.verify({{sequence.get(), {sequence->length() - 1}}}, &sampling, [] {}, &token);
    given.push_back(static_cast<int>(token));
    sequence->append({given.back()});
  }
  return given;
}

// What drafts are made with.
struct Parts {
  std::unique_ptr<specee::Drafter> drafter;
  std::unique_ptr<specee::ExitPredictors> exits;
  std::unique_ptr<specee::DraftHead> head;  // of some tokens

  specee::RoundParts all() const { return {drafter.get(), nullptr, exits.get()}; }
};

Parts some_parts(Engine& engine, const std::vector<int>& layers, Random& random) {
  const int vocab = engine.config().vocab_size;
  std::vector<int64_t> tokens(static_cast<size_t>(random.between(1, vocab)));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int64_t>(i);
  return {some_drafter(engine, layers, random),
          some_predictors(engine, random.between(1, std::min(vocab, 4)), random),
          engine.draft_head(nullptr, &tokens, nullptr)};
}

// A chain or a tree of the block, or a chain of rows behind shallow layers.
specee::RoundDrafts some_drafts(const Engine& engine, const Parts& parts, Text& text, int count,
                                Random& random) {
  const int deepest = engine.config().num_layers - 1;
  specee::RoundDrafts drafts;
  drafts.column = text.column.get();
  drafts.limits = {count, random.between(1, 4), random.between(1, 4), random.between(1, 4), 0.0f, 0.0f};
  drafts.kind = random.chance(50) ? DraftKind::chain : DraftKind::tree;
  if (deepest < 1 || random.chance(40)) return drafts;
  drafts.kind = random.chance(50) ? DraftKind::layer : DraftKind::exits;
  if (drafts.kind == DraftKind::layer) {
    drafts.layers = {random.between(1, deepest)};
    drafts.head = random.chance(50) ? parts.head.get() : nullptr;
    drafts.limits.stop_below = random.chance(50) ? 0.3f : 0.0f;
    return drafts;
  }
  for (int layer = 1; layer <= deepest; ++layer)
    if (random.chance(80)) drafts.layers.push_back(layer);
  drafts.threshold = random.chance(50) ? 0.3f : 0.6f;
  drafts.limits.stop_below = random.chance(50) ? 0.7f : 0.0f;
  return drafts;
}

// Rows of any depth that hold the right tokens and wrong ones.
void branch(Engine& engine, Text& text, const std::vector<int>& plain, int count, Random& random) {
  Sequence& sequence = *text.sequence;
  std::vector<int> tokens;
  const size_t done = text.given.size();
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    const bool right = random.chance(70);
    tokens.push_back(right ? plain[done + i] : random.between(0, engine.config().vocab_size - 1));
  }
  const std::vector<int> rows = sequence.branch(tokens, nullptr, sequence.last_committed());
  if (engine.config().num_layers > 1 && random.chance(50))
    engine.advance({{&sequence, {rows.front()}}}, 1, [] {});
}

// Nothing, drafts, copies, both, or rows that are there.
RoundCall some_call(Engine& engine, const Parts& parts, Text& text, const std::vector<int>& plain,
                    Random& random) {
  RoundCall call{text.sequence.get(), text.sampling, text.ends, random.between(1, text.left()), {}};
  const int room = text.left() - 1;
  if (room < 1) return call;
  const int count = random.between(1, std::min(room, 7));
  if (random.chance(50)) call.copies = {text.ngrams.get(), count, random.chance(50) ? 0.0f : 0.7f};
  if (random.chance(60))
    call.drafts = some_drafts(engine, parts, text, count, random);
  else if (call.copies.index == nullptr && random.chance(70))
    branch(engine, text, plain, count, random);
  return call;
}

// A row behind the text's end is computed again, as the loop has it.
void go_on(Sequence& sequence) {
  const specee::Row& newest = sequence.row(sequence.length() - 1);
  if (newest.done == 0) return;
  const int token = newest.token;
  sequence.rollback(1);
  sequence.append({token});
}

void check_round(Text& text, int remaining, const RoundResult& result) {
  const size_t count = result.tokens.size();
  CHECK(count >= 1 && static_cast<int>(count) <= remaining, "a round gave more than it may");
  CHECK(result.accepted.size() == count || result.accepted.size() + 1 == count, "more drafts than tokens");
  for (size_t i = 0; i + 1 < count; ++i)
    CHECK(std::find(text.ends.begin(), text.ends.end(), result.tokens[i]) == text.ends.end(),
          "a text went on behind its end");
  for (const int64_t token : result.tokens) text.given.push_back(static_cast<int>(token));
}

// Turns of one text, the first of which may give as many tokens as the call says.
void check_turns(Text& text, const RoundCall& call, const std::vector<specee::RoundTurn>& turns, size_t at) {
  int remaining = call.remaining;
  for (const specee::RoundTurn& turn : turns) {
    const RoundResult& result = turn.results[at];
    check_round(text, remaining, result);
    remaining -= static_cast<int>(result.tokens.size());
    const bool last = &turn == &turns.back();
    const bool ended = std::find(text.ends.begin(), text.ends.end(), result.tokens.back()) != text.ends.end();
    CHECK(last || (!result.copied && !ended && remaining > 0), "a turn that nobody was asked for");
  }
  CHECK(text.sequence->speculative().empty(), "drafts are left");
  CHECK(text.sequence->length() == static_cast<int>(text.prompt.size() + text.given.size()),
        "rows are not the text");
  go_on(*text.sequence);
}

// Of a text that has no room left: these are found first.
void check_missing_parts(Engine& engine, const Text& text) {
  const auto call_of = [&](DraftKind kind, std::vector<int> layers) {
    RoundCall call{text.sequence.get(), {}, {}, 1, {}};
    call.drafts.kind = kind;
    call.drafts.column = text.column.get();
    call.drafts.limits.nodes = 1;
    call.drafts.layers = std::move(layers);
    return call;
  };
  const int too_deep = engine.config().num_layers + 1;
  CHECK_THROWS(specee::ConfigurationError, engine.run_rounds({call_of(DraftKind::chain, {})}, {}, [] {}, 1));
  CHECK_THROWS(specee::ConfigurationError, engine.run_rounds({call_of(DraftKind::exits, {1})}, {}, [] {}, 1));
  CHECK_THROWS(specee::RowError, engine.run_rounds({call_of(DraftKind::layer, {0})}, {}, [] {}, 1));
  CHECK_THROWS(specee::RowError, engine.run_rounds({call_of(DraftKind::layer, {too_deep})}, {}, [] {}, 1));
  CHECK(text.sequence->speculative().empty(), "a call that was refused left drafts");
}

}  // namespace

void test_rounds(const std::string& isa, Random& random) {
  specee::ModelConfig config = tiny_config(random);
  config.max_position = 64;
  const auto engine = tiny_engine(config, tiny_types(config, random), isa,
                                  random.between(1, std::min(3, current().threads)), random.bits());
  const std::vector<int> layers = {config.num_layers};
  const Parts parts = some_parts(*engine, layers, random);
  std::vector<Text> texts;
  std::vector<std::vector<int>> plain;
  for (int i = random.between(1, 3); i > 0; --i) {
    texts.push_back(some_text(*engine, *parts.drafter, layers, random));
    plain.push_back(plainly(*engine, texts.back()));
  }
  for (;;) {
    std::vector<RoundCall> calls;
    std::vector<Text*> going;
    for (size_t i = 0; i < texts.size(); ++i) {
      if (texts[i].left() == 0) continue;
      going.push_back(&texts[i]);
      calls.push_back(some_call(*engine, parts, texts[i], plain[i], random));
    }
    if (calls.empty()) break;
    const int most = random.between(1, 4);
    const std::vector<specee::RoundTurn> turns = engine->run_rounds(calls, parts.all(), [] {}, most);
    CHECK(!turns.empty() && static_cast<int>(turns.size()) <= most, "not as many turns as allowed");
    for (size_t i = 0; i < calls.size(); ++i) check_turns(*going[i], calls[i], turns, i);
  }
  for (size_t i = 0; i < texts.size(); ++i) CHECK(texts[i].given == plain[i], "a round changed the text");
  const RoundCall full{texts[0].sequence.get(), {}, {}, 1, {}};
  CHECK_THROWS(specee::CapacityError, engine->run_rounds({full}, {}, [] {}, 1));
  CHECK_THROWS(specee::RowError, engine->run_rounds({full, full}, {}, [] {}, 1));
  CHECK_THROWS(specee::RowError, engine->run_rounds({full}, {}, [] {}, 0));
  CHECK_THROWS(specee::RowError, specee::NgramIndex(1, 2));
  check_missing_parts(*engine, texts[0]);
}

}  // namespace native
