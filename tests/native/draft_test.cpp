// What heads do beside products: sums of exponentials, adapters' activation, and draft heads against the
// whole head.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/engine.h"
#include "reference.h"
#include "specee/errors.h"
#include "tests.h"
#include "tiny_engine.h"

namespace native {
namespace {

using specee::Adapter;
using specee::DraftHead;
using specee::Engine;
using specee::Sampling;
using specee::Sequence;

constexpr int kCapacity = 20;

struct Drafts {
  std::vector<int64_t> tokens;
  std::vector<float> confidences;
};

// Rows of one sequence, all at the same layer.
class Rows {
 public:
  Rows(Engine& engine, Random& random) : engine_(engine) {
    const specee::ModelConfig& config = engine.config();
    sequence_ = engine.sequence(kCapacity, specee::Dtype::f32, true);
    std::vector<int> tokens;
    for (int i = random.between(1, kCapacity); i > 0; --i)
      tokens.push_back(random.between(0, config.vocab_size - 1));
    sequence_->append(tokens);
    slots_.resize(tokens.size());
    std::iota(slots_.begin(), slots_.end(), 0);
    engine.advance(work(), random.between(1, config.num_layers), [] {});
  }

  size_t count() const { return slots_.size(); }
  specee::Work work() { return {{sequence_.get(), slots_}}; }
  specee::Work one(size_t row) { return {{sequence_.get(), {slots_[row]}}}; }

  std::vector<float> logits(const DraftHead* head) {
    std::vector<float> out(count() * static_cast<size_t>(engine_.config().vocab_size));
    engine_.logits(work(), head, out.data());
    return out;
  }
  Drafts draft(const specee::Work& work, const Sampling& sampling, const DraftHead* head) {
    const size_t rows = specee::count_rows(work);
    Drafts made{std::vector<int64_t>(rows), std::vector<float>(rows)};
    engine_.draft(work, std::vector<Sampling>(rows, sampling), head, made.tokens.data(),
                  made.confidences.data());
    return made;
  }

 private:
  Engine& engine_;
  std::unique_ptr<Sequence> sequence_;
  std::vector<int> slots_;
};

std::vector<int64_t> some_tokens(int vocab_size, Random& random) {
  std::vector<int64_t> tokens;
  for (int token = vocab_size - 1; token >= 0; --token)
    if (random.chance(60)) tokens.push_back(token);
  if (tokens.empty()) tokens.push_back(random.between(0, vocab_size - 1));
  return tokens;
}

std::unique_ptr<const Adapter> some_adapter(int hidden, Random& random) {
  const int width = random.between(1, 40);
  const size_t size = static_cast<size_t>(hidden) * static_cast<size_t>(width);
  return std::make_unique<Adapter>(hidden, width, random.floats(static_cast<size_t>(hidden), 1.0f).data(),
                                   random.floats(size, 0.3f).data(), random.floats(size, 0.3f).data());
}

// Every draft is the largest of the head's logits, with its share of their softmax.
void check_greedy(Rows& rows, const DraftHead* head, const std::vector<float>& logits, size_t vocab) {
  const Drafts drafts = rows.draft(rows.work(), Sampling{}, head);
  for (size_t r = 0; r < rows.count(); ++r) {
    const float* row = logits.data() + r * vocab;
    const auto best = static_cast<int64_t>(std::max_element(row, row + vocab) - row);
    CHECK(drafts.tokens[r] == best, "row " + std::to_string(r) + " drafts another token than its best");
    double sum = 0.0, spread = 0.0;
    for (size_t i = 0; i < vocab; ++i) {
      sum += std::exp(static_cast<double>(row[i]) - row[best]);
      if (std::isfinite(row[i])) spread = std::max(spread, static_cast<double>(row[best]) - row[i]);
    }
    const double bound = (spread + 30) * kUnit;
    CHECK(std::fabs(drafts.confidences[r] * sum - 1.0) <= bound,
          "row " + std::to_string(r) + " has confidence " + std::to_string(drafts.confidences[r]));
    const Drafts alone = rows.draft(rows.one(r), Sampling{}, head);
    CHECK(alone.tokens[0] == drafts.tokens[r] &&
              std::memcmp(alone.confidences.data(), &drafts.confidences[r], sizeof(float)) == 0,
          "row " + std::to_string(r) + " drafts otherwise when it is alone");
  }
}

void check_refusals(Engine& engine, Engine& other, Rows& rows) {
  const int64_t vocab = engine.config().vocab_size;
  for (const std::vector<int64_t>& tokens :
       {std::vector<int64_t>{}, {vocab}, {-1}, {0, 1, 0}, {int64_t{1} << 40}})
    CHECK_THROWS(specee::ConfigurationError, engine.draft_head(nullptr, &tokens, nullptr));
  const auto foreign = other.draft_head(nullptr, nullptr, nullptr);
  CHECK_THROWS(specee::ConfigurationError, rows.logits(foreign.get()));
  CHECK_THROWS(specee::ConfigurationError, rows.draft(rows.work(), Sampling{}, foreign.get()));
}

}  // namespace

void test_logit_runs(const specee::Kernels& kernels, Random& random) {
  const int n = random.chance(50) ? random.between(1, 40) : random.between(1, 600);
  std::vector<float> values = random.floats(static_cast<size_t>(n), random.chance(50) ? 20.0f : 200.0f);
  const float top = *std::max_element(values.begin(), values.end());
  CHECK(kernels.largest(values.data(), n) == top, "not the largest of " + std::to_string(n));
  const float shift = random.chance(50) ? top : top + random.uniform(0.0f, 30.0f);
  double sum = 0.0, bound = 0.0;
  for (const float value : values) {
    const double term = std::exp(static_cast<double>(value) - shift);
    sum += term;
    bound += term * (static_cast<double>(shift) - value + 4) * kUnit;  // the exponent rounded, 2 ulp
  }
  bound += (n / 16.0 + 6) * kUnit * sum + n * 2e-38;  // sixteen chains and a tree; clamped exponents
  const double got = kernels.sum_exp(values.data(), n, shift);
  CHECK(std::fabs(got - sum) <= bound, "the sum of " + std::to_string(n) + " exponentials is " +
                                           std::to_string(got) + ", expected " + std::to_string(sum));
  std::vector<float> active = values;
  kernels.silu(active.data(), n);
  for (size_t i = 0; i < values.size(); ++i)
    CHECK(std::fabs(active[i] - silu_exact(values[i])) <= swiglu_bound(silu_exact(values[i])),
          "silu of " + std::to_string(values[i]) + " is " + std::to_string(active[i]));
}

void test_draft_heads(const std::string& isa, Random& random) {
  const specee::ModelConfig config = tiny_config(random);
  const specee::WeightTypes types = tiny_types(config, random);
  const int threads = random.between(1, std::min(3, current().threads));
  const auto engine = tiny_engine(config, types, isa, threads, random.bits());
  const size_t vocab = static_cast<size_t>(config.vocab_size);
  Rows rows(*engine, random);
  const bool adapts = random.chance(50);
  Random same = random;  // two adapters of the same values
  const auto whole =
      engine->draft_head(adapts ? some_adapter(config.hidden_size, random) : nullptr, nullptr, nullptr);
  const std::vector<int64_t> tokens = some_tokens(config.vocab_size, random);
  const auto part =
      engine->draft_head(adapts ? some_adapter(config.hidden_size, same) : nullptr, &tokens, nullptr);
  const std::vector<float> all = rows.logits(whole.get()), kept = rows.logits(part.get());
  for (size_t i = 0; i < all.size(); ++i) {
    const auto token = static_cast<int64_t>(i % vocab);
    const bool is_kept = std::find(tokens.begin(), tokens.end(), token) != tokens.end();
    const float expected = is_kept ? all[i] : -std::numeric_limits<float>::infinity();
    CHECK(std::memcmp(&kept[i], &expected, sizeof(float)) == 0,
          "the logit of token " + std::to_string(token) + " has other bits in a head of " +
              std::to_string(tokens.size()) + " tokens");
  }
  check_greedy(rows, whole.get(), all, vocab);
  check_greedy(rows, part.get(), kept, vocab);
  Sampling hot;
  hot.temperature = 1.5;
  hot.repetition_penalty = 1.2;
  for (const int64_t token : rows.draft(rows.work(), hot, part.get()).tokens)
    CHECK(std::find(tokens.begin(), tokens.end(), token) != tokens.end(),
          "token " + std::to_string(token) + " was drawn and is not kept");
  const auto other = tiny_engine(config, types, isa, 1, random.bits());
  check_refusals(*engine, *other, rows);
}

}  // namespace native
