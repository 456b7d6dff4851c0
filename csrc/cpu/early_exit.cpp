// SpecEE's way through the layers (Xu et al., "SpecEE: Accelerating large language model inference with
// speculative early exiting", ISCA 2025): at each checked layer a predictor looks at the scores of a few
// candidates, and the row leaves where it is sure.
#include <algorithm>
#include <chrono>
#include <string>

#include "cpu/engine.h"
#include "specee/errors.h"

namespace specee {

// One call of Engine::leave_early().
class EarlyExit {
 public:
  EarlyExit(Engine& engine, const std::vector<ExitCall>& calls, bool confirm,
            const std::function<void()>& between, ExitSeconds& seconds)
      : engine_(engine),
        calls_(calls),
        confirm_(confirm),
        between_(between),
        seconds_(seconds),
        rows_(calls.size()),
        exits_(calls.size()) {}

  std::vector<Exit> run(Drafter& drafter, const ExitPredictors& predictors, const DraftHead* head) {
    propose(drafter, predictors, head);
    for (const int layer : checked_layers()) {
      const std::vector<size_t> going =
          still([&](const ExitCall& call) { return !call.layers.empty() && call.layers.back() >= layer; });
      timed(seconds_.layers, [&] {
        engine_.advance(work(going), layer, between_);
        check(going, predictors.of(layer), layer);
      });
      leave(going, layer);
    }
    if (confirm_) finish();
    return std::move(exits_);
  }

 private:
  template <class Body>
  static void timed(double& seconds, const Body& body) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  // Candidates are only needed where something is checked.
  void propose(Drafter& drafter, const ExitPredictors& predictors, const DraftHead* head) {
    const std::vector<size_t> all = still([](const ExitCall& call) { return !call.layers.empty(); });
    if (all.empty()) return;
    timed(seconds_.draft, [&] {
      std::vector<RankCall> ranks;
      for (const size_t i : all) ranks.push_back({calls_[i].sequence, calls_[i].column, calls_[i].slot});
      const std::vector<std::vector<int>> tokens =
          engine_.rank(drafter, ranks, predictors.candidates(), head);
      candidates_ = engine_.scoring_.gather(tokens);
      for (size_t j = 0; j < all.size(); ++j) rows_[all[j]].candidates = &candidates_[j];
    });
  }

  std::vector<int> checked_layers() const {
    std::vector<int> layers;
    for (const ExitCall& call : calls_) layers.insert(layers.end(), call.layers.begin(), call.layers.end());
    std::sort(layers.begin(), layers.end());
    layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
    return layers;
  }

  // Calls that have not left, of those that are `wanted`.
  template <class Wanted>
  std::vector<size_t> still(const Wanted& wanted) const {
    std::vector<size_t> found;
    for (size_t i = 0; i < calls_.size(); ++i)
      if (exits_[i].layer == 0 && wanted(calls_[i])) found.push_back(i);
    return found;
  }

  Work work(const std::vector<size_t>& indices) const {
    Work work;
    for (const size_t i : indices) work.push_back({calls_[i].sequence, {calls_[i].slot}});
    return work;
  }

  bool has(size_t i, int layer) const {
    return std::binary_search(calls_[i].layers.begin(), calls_[i].layers.end(), layer);
  }

  // Rows that want it at this layer; what a row is that did more layers before does not count.
  void check(const std::vector<size_t>& going, const ExitPredictor& predictor, int layer) {
    const std::lock_guard<std::mutex> lock(engine_.mutex_);
    std::vector<ExitRow*> checked;
    for (const size_t i : going) {
      rows_[i].chance = -1.0f;
      if (!has(i, layer)) continue;
      const Row& row = calls_[i].sequence->row(calls_[i].slot);
      if (row.done != layer) continue;
      rows_[i].predictor = &predictor;
      rows_[i].hidden = row.hidden.get();
      engine_.check_finite({rows_[i].hidden});
      checked.push_back(&rows_[i]);
    }
    if (!checked.empty()) engine_.exit_check_.run(checked);
  }

  void leave(const std::vector<size_t>& going, int layer) {
    std::vector<size_t> fired;
    for (const size_t i : going)
      if (rows_[i].chance > calls_[i].threshold) fired.push_back(i);
    if (fired.empty()) return;
    std::vector<int64_t> tokens(fired.size());
    if (confirm_)
      draw(fired, tokens);
    else
      for (size_t j = 0; j < fired.size(); ++j) tokens[j] = choose(fired[j]);
    for (size_t j = 0; j < fired.size(); ++j) {
      const size_t i = fired[j];
      const std::vector<int>& known = rows_[i].candidates->tokens;
      if (std::find(known.begin(), known.end(), static_cast<int>(tokens[j])) == known.end()) continue;
      exits_[i] = {layer, tokens[j], rows_[i].chance};
    }
  }

  // With the whole head.
  void draw(const std::vector<size_t>& indices, std::vector<int64_t>& tokens) {
    std::vector<Sampling> sampling;
    for (const size_t i : indices) sampling.push_back(calls_[i].sampling);
    timed(seconds_.head, [&] { engine_.sample(work(indices), sampling, tokens.data()); });
  }

  // Of the candidates alone, with the noise that the final token will have.
  int choose(size_t i) const {
    const uint64_t position = static_cast<uint64_t>(calls_[i].sequence->row(calls_[i].slot).position) + 1;
    return likeliest(rows_[i], calls_[i].sampling, position);
  }

  // Rows that no predictor let go: through all layers.
  void finish() {
    const std::vector<size_t> rest = still([](const ExitCall&) { return true; });
    if (rest.empty()) return;
    const int last = engine_.config_.num_layers;
    timed(seconds_.layers, [&] { engine_.advance(work(rest), last, between_); });
    std::vector<int64_t> tokens(rest.size());
    draw(rest, tokens);
    for (size_t j = 0; j < rest.size(); ++j) exits_[rest[j]] = {last, tokens[j], 1.0f};
  }

  Engine& engine_;
  const std::vector<ExitCall>& calls_;
  const bool confirm_;
  const std::function<void()>& between_;
  ExitSeconds& seconds_;
  std::vector<Candidates> candidates_;  // of calls that check layers
  std::vector<ExitRow> rows_;
  std::vector<Exit> exits_;
};

namespace {

void check_layers(const std::vector<int>& layers, const ExitPredictors& predictors) {
  for (size_t i = 0; i < layers.size(); ++i) {
    predictors.of(layers[i]);
    if (i > 0 && layers[i] <= layers[i - 1])
      throw RowError("layers to check must ascend, each once; " + std::to_string(layers[i]) + " follows " +
                     std::to_string(layers[i - 1]));
  }
}

}  // namespace

std::unique_ptr<ExitPredictors> Engine::exit_predictors(int candidates, int width) {
  return std::make_unique<ExitPredictors>(config_, candidates, width);
}

std::vector<Exit> Engine::leave_early(Drafter& drafter, const ExitPredictors& predictors,
                                      const std::vector<ExitCall>& calls, const DraftHead* head, bool confirm,
                                      const std::function<void()>& between, ExitSeconds& seconds) {
  if (predictors.model() != &config_)
    throw ConfigurationError(
        "exit predictors of another model; make them with this backend's exit_predictors()");
  check(head);
  check(drafter);
  Work work;
  for (const ExitCall& call : calls) work.push_back({call.sequence, {call.slot}});
  check(work);
  for (const ExitCall& call : calls) check_layers(call.layers, predictors);
  return EarlyExit(*this, calls, confirm, between, seconds).run(drafter, predictors, head);
}

std::vector<std::vector<int>> Engine::rank(Drafter& drafter, const std::vector<RankCall>& calls, int k,
                                           const DraftHead* head) {
  check(head);
  check(drafter);
  Work work;
  for (const RankCall& call : calls) work.push_back({call.sequence, {call.slot}});
  check(work);
  const std::lock_guard<std::mutex> lock(mutex_);
  return drafter.rank(calls, k, head, head_);
}

void Engine::score(const Work& work, const std::vector<int>& layers,
                   const std::vector<std::vector<int>>& candidates, float* out) {
  check(work);
  if (candidates.size() != count_rows(work))
    throw RowError("got candidates for " + std::to_string(candidates.size()) + " rows, and work names " +
                   std::to_string(count_rows(work)));
  const size_t count = candidates.empty() ? 0 : candidates.front().size();
  for (const std::vector<int>& tokens : candidates)
    if (tokens.size() != count)
      throw RowError("rows have different numbers of candidates; give each as many");
  const std::vector<Candidates> gathered = scoring_.gather(candidates);
  std::vector<const float*> kept;
  std::vector<const Candidates*> own;
  for (const WorkItem& item : work)
    for (const int slot : item.slots) {
      const Candidates& row = gathered[kept.size() / std::max<size_t>(layers.size(), 1)];
      for (const int layer : layers) {
        kept.push_back(item.sequence->kept_state(slot, layer));
        own.push_back(&row);
      }
    }
  const std::lock_guard<std::mutex> lock(mutex_);
  check_finite(kept);
  scoring_.run(kept, own, [&](int row, const float* logits) {
    std::copy_n(logits, count, out + static_cast<size_t>(row) * count);
  });
}

}  // namespace specee
