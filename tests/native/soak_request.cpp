#include "soak_request.h"

namespace native {

using specee::Engine;
using specee::ModelConfig;
using specee::Sampling;
using specee::Sequence;

namespace {

Sampling some_sampling(const ModelConfig& c, Random& random) {
  Sampling sampling;
  if (random.chance(20)) sampling.repetition_penalty = random.uniform(0.7f, 1.8f);
  if (random.chance(50)) return sampling;
  sampling.temperature = random.uniform(0.3f, 2.0f);
  sampling.seed = random.bits();
  if (random.chance(40)) sampling.top_k = random.between(1, c.vocab_size);
  if (random.chance(40)) sampling.top_p = random.uniform(0.3f, 1.0f);
  if (random.chance(30)) sampling.min_p = random.uniform(0.01f, 0.3f);
  return sampling;
}

SoakText some_text(const ModelConfig& c, bool is_long, Random& random) {
  SoakText text;
  // Longer than a pass, so that there is something between passes.
  const int length = is_long ? random.between(specee::kMaxRows + 1, 90) : random.between(1, 16);
  text.prompt.resize(static_cast<size_t>(length));
  for (int& token : text.prompt) token = random.between(0, c.vocab_size - 1);
  text.most = random.between(1, 14);
  text.end = random.chance(40) ? random.between(0, c.vocab_size - 1) : -1;
  text.sampling = some_sampling(c, random);
  return text;
}

}  // namespace

SoakRequest soak_request(const ModelConfig& config, Mishap mishap, int latest, Random& random) {
  SoakRequest request;
  request.seed = random.bits();
  for (int i = random.between(1, 3); i > 0; --i)
    request.texts.push_back(some_text(config, random.chance(10), random));
  if (mishap == Mishap::interrupted) request.texts.front() = some_text(config, true, random);
  request.drafts = static_cast<Drafts>(random.between(0, 2));
  request.mishap = mishap;
  // It is the long prompt whose passes have something between them.
  request.when = mishap == Mishap::interrupted ? 0 : random.between(0, latest);
  return request;
}

std::unique_ptr<Sequence> soak_sequence(Engine& engine, const SoakText& text) {
  const int room = static_cast<int>(text.prompt.size()) + text.most + kSoakDrafts + 1;
  auto sequence = engine.sequence(room, specee::Dtype::f32, true);
  sequence->append(text.prompt);
  return sequence;
}

SoakAnswer alone(Engine& engine, const SoakText& text) {
  const auto sequence = soak_sequence(engine, text);
  const std::vector<Sampling> sampling = {text.sampling};
  SoakAnswer answer;
  while (static_cast<int>(answer.tokens.size()) < text.most) {
    int64_t token = -1;
    engine.verify({{sequence.get(), {sequence->length() - 1}}}, &sampling, [] {}, &token);
    answer.tokens.push_back(static_cast<int>(token));
    sequence->append({answer.tokens.back()});
    if (answer.tokens.back() == text.end) break;
  }
  answer.hidden = newest_state(engine, *sequence);
  return answer;
}

std::vector<float> newest_state(Engine& engine, Sequence& sequence) {
  const specee::Work last = {{&sequence, {sequence.length() - 1}}};
  engine.advance(last, engine.config().num_layers, [] {});
  std::vector<float> state(static_cast<size_t>(engine.config().hidden_size));
  engine.hidden(last, state.data());
  return state;
}

}  // namespace native
