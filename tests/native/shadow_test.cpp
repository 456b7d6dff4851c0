// Shadow tokens of long prompts, several sequences at once, cut into passes that may be interrupted.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "cpu/engine.h"
#include "specee/errors.h"
#include "tests.h"
#include "tiny_engine.h"

namespace native {
namespace {

using specee::Engine;
using specee::Sequence;

constexpr int kLongest = 300;  // several passes of 64 rows

struct Interrupt {};

std::vector<int> some_text(int vocab_size, Random& random) {
  std::vector<int> text(static_cast<size_t>(random.between(1, kLongest)));
  for (int& token : text) token = random.between(0, vocab_size - 1);
  return text;
}

// Sequences that keep every layer, each with a text of its own.
struct Texts {
  std::vector<std::unique_ptr<Sequence>> sequences;
  specee::Work all;  // the last row of each

  Texts(Engine& engine, Random& random) {
    std::vector<int> layers(static_cast<size_t>(engine.config().num_layers));
    std::iota(layers.begin(), layers.end(), 1);
    for (int i = random.between(1, 3); i > 0; --i) {
      sequences.push_back(engine.sequence(kLongest, specee::Dtype::f32, false));
      Sequence& own = *sequences.back();
      own.keep(layers, random.between(0, 90));
      own.append(some_text(engine.config().vocab_size, random));
      all.push_back({&own, {own.length() - 1}});
    }
  }
};

// Complete rows have exactly the latest positions, whatever the passes were.
void check_window(const Sequence& sequence) {
  const int complete = sequence.frontier().back();
  const int kept = std::min(complete, sequence.keeps().positions());
  CHECK(sequence.kept() == kept, std::to_string(sequence.kept()) + " positions are kept of " +
                                     std::to_string(complete) + ", not " + std::to_string(kept));
  for (int slot = 0; slot < complete; ++slot)
    CHECK((sequence.row(slot).kept != nullptr) == (slot >= complete - kept),
          "slot " + std::to_string(slot) + " of " + std::to_string(complete) + " complete");
}

// The kept rows of all sequences in one call, against drafts at each layer of sequences that keep nothing.
void check_shadows(Engine& engine, Texts& texts) {
  specee::Work work, plain;
  std::vector<std::unique_ptr<Sequence>> fresh;
  for (const auto& sequence : texts.sequences) {
    std::vector<int> text, slots(static_cast<size_t>(sequence->kept()));
    for (int slot = 0; slot < sequence->length(); ++slot) text.push_back(sequence->row(slot).token);
    std::iota(slots.begin(), slots.end(), sequence->length() - sequence->kept());
    fresh.push_back(engine.sequence(kLongest, specee::Dtype::f32, false));
    fresh.back()->append(text);
    work.push_back({sequence.get(), slots});
    plain.push_back({fresh.back().get(), slots});
  }
  const std::vector<int>& layers = texts.sequences.front()->keeps().layers();
  const size_t rows = specee::count_rows(work), width = layers.size();
  std::vector<int64_t> tokens(rows * width), expected(rows);
  std::vector<float> shares(rows * width), wanted(rows);
  engine.shadow(work, layers, nullptr, tokens.data(), shares.data());
  for (size_t at = 0; at < width; ++at) {
    engine.advance(plain, layers[at], [] {});
    engine.draft(plain, std::vector<specee::Sampling>(rows), nullptr, expected.data(), wanted.data());
    for (size_t r = 0; r < rows; ++r)
      CHECK(tokens[r * width + at] == expected[r] &&
                std::memcmp(&shares[r * width + at], &wanted[r], sizeof(float)) == 0,
            "row " + std::to_string(r) + " drafts otherwise at layer " + std::to_string(layers[at]));
  }
}

}  // namespace

void test_shadow(const std::string& isa, Random& random) {
  specee::ModelConfig config = tiny_config(random);
  config.max_position = kLongest;
  const specee::WeightTypes types = tiny_types(config, random);
  const int threads = random.between(1, std::min(3, current().threads));
  const auto engine = tiny_engine(config, types, isa, threads, random.bits());
  Texts texts(*engine, random);
  if (random.chance(50)) engine->advance(texts.all, random.between(1, config.num_layers), [] {});
  int passes = random.between(0, 4);
  try {
    engine->advance(texts.all, config.num_layers, [&] {
      if (passes-- == 0) throw Interrupt{};
    });
  } catch (const Interrupt&) {
    for (const auto& sequence : texts.sequences) check_window(*sequence);
  }
  engine->advance(texts.all, config.num_layers, [] {});
  for (const auto& sequence : texts.sequences) check_window(*sequence);
  check_shadows(*engine, texts);
}

}  // namespace native
