// What users ask of an engine: texts to continue, drafted for in some way, and what goes wrong meanwhile.
#pragma once

#include <vector>

#include "check.h"
#include "cpu/engine.h"

namespace native {

// The tokens that a text goes on with, and the hidden state of the last of them.
struct SoakAnswer {
  std::vector<int> tokens;
  std::vector<float> hidden;
};

// It ends after `most` new tokens, or at the token `end`.
struct SoakText {
  std::vector<int> prompt;
  int most, end;
  specee::Sampling sampling;
  SoakAnswer expected;  // alone()
};

enum class Drafts { none, exit_layer, tree };

enum class Mishap {
  none,
  bad_input,    // refused, and the texts go on
  interrupted,  // in the middle of a pass, as by Ctrl-C; the texts go on
  callback,     // an exception between drafts and their verification; the texts go on
  abandoned,    // the same, and nobody goes on
};
inline constexpr int kMishaps = 5;

struct SoakRequest {
  uint64_t seed;  // of what is drafted and refused
  std::vector<SoakText> texts;
  Drafts drafts;
  Mishap mishap;
  int when;  // the step at which it happens, if there are so many
};

inline constexpr int kSoakPositions = 128;  // of the longest text, drafts included
inline constexpr int kSoakDrafts = 6;       // of a step at most

// Of a model of that shape; `latest` is the last step at which the mishap may happen.
SoakRequest soak_request(const specee::ModelConfig& config, Mishap mishap, int latest, Random& random);

// Plain decoding of one text, one token at a time, with nobody else there.
SoakAnswer alone(specee::Engine& engine, const SoakText& text);

// A sequence that has room for the text and its drafts, and holds the prompt.
std::unique_ptr<specee::Sequence> soak_sequence(specee::Engine& engine, const SoakText& text);

// Of the text's newest token, which is advanced for it.
std::vector<float> newest_state(specee::Engine& engine, specee::Sequence& sequence);

}  // namespace native
