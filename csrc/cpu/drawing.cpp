#include "cpu/drawing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>

namespace specee {
namespace {

constexpr Scored kNothing{-std::numeric_limits<float>::infinity(), std::numeric_limits<int>::max()};

// In double: at most 1, since the largest logit's own term in the sum is 1.
float probability(float logit, float largest, double sum) {
  return static_cast<float>(std::exp(static_cast<double>(logit) - largest) / sum);
}

}  // namespace

Drawing::Drawing(int vocab_size, const Kernels& kernels, ThreadPool& pool, HeadStream& stream)
    : vocab_size_(vocab_size), kernels_(kernels), pool_(pool), stream_(stream) {}

std::vector<int> Drawing::Columns::of(const std::vector<int>& tokens) const {
  if (ids == nullptr) return tokens;
  std::vector<int> columns;
  auto at = ids->begin();
  for (const int token : tokens) {
    at = std::lower_bound(at, ids->end(), token);
    if (at != ids->end() && *at == token) columns.push_back(static_cast<int>(at - ids->begin()));
  }
  return columns;
}

void Drawing::argmax(const std::vector<const float*>& hidden, int64_t* tokens) {
  draw(hidden, std::vector<Draw>(hidden.size()), nullptr, tokens, nullptr);
}

void Drawing::draw(const std::vector<const float*>& hidden, const std::vector<Draw>& draws,
                   const DraftHead* head, int64_t* tokens, float* confidences) {
  const std::vector<int>* ids = head != nullptr ? head->ids() : nullptr;
  const Columns columns{ids != nullptr ? static_cast<int>(ids->size()) : vocab_size_, ids};
  const size_t rows = hidden.size(), width = static_cast<size_t>(columns.count);
  Kept kept = keep(draws, columns);
  std::vector<Best> best(rows * static_cast<size_t>(pool_.size()), Best{kNothing, 0.0});
  stream_.run(hidden, head, [&](int member, const HeadPiece& p) {
    for (int r = 0; r < p.rows; ++r) {
      const size_t row = static_cast<size_t>(p.row + r), place = kept.place[row];
      if (place != kNone)
        std::memcpy(kept.logits.data() + place * width + p.begin, p.of(r),
                    static_cast<size_t>(p.columns) * sizeof(float));
      Best& own = best[static_cast<size_t>(member) * rows + row];
      for (int at = 0; at < p.columns; at += kHeadRun)
        see(p.of(r) + at, p.begin + at, std::min(kHeadRun, p.columns - at), confidences != nullptr, own);
    }
  });
  for (size_t row = 0; row < rows; ++row) {
    best[row] = merge(best, row, rows);
    const Scored& top = best[row].top;
    tokens[row] = columns.token(top.token);
    if (confidences != nullptr) confidences[row] = probability(top.value, top.value, best[row].sum);
  }
  if (!kept.rows.empty()) draw_kept(kept, columns, draws, best, tokens, confidences);
}

Drawing::Kept Drawing::keep(const std::vector<Draw>& draws, const Columns& columns) {
  Kept kept;
  for (size_t row = 0; row < draws.size(); ++row) {
    const bool plain = draws[row].sampling.plain_greedy();
    kept.place.push_back(plain ? kNone : kept.rows.size());
    if (!plain) kept.rows.push_back(row);
  }
  kept.logits.resize(kept.rows.size() * static_cast<size_t>(columns.count));
  return kept;
}

void Drawing::see(const float* run, int begin, int columns, bool add_up, Best& best) const {
  const float largest = kernels_.largest(run, columns);
  if (largest > best.top.value) {  // runs come lowest columns first
    if (add_up) best.sum *= std::exp(static_cast<double>(best.top.value) - largest);
    for (int i = 0; i < columns; ++i)
      if (better({run[i], begin + i}, best.top)) best.top = {run[i], begin + i};
  }
  if (add_up) best.sum += kernels_.sum_exp(run, columns, best.top.value);
}

Drawing::Best Drawing::merge(const std::vector<Best>& best, size_t row, size_t rows) {
  Best merged{kNothing, 0.0};
  for (size_t at = row; at < best.size(); at += rows)
    if (better(best[at].top, merged.top)) merged.top = best[at].top;
  for (size_t at = row; at < best.size(); at += rows)
    merged.sum += best[at].sum * std::exp(static_cast<double>(best[at].top.value) - merged.top.value);
  return merged;
}

void Drawing::draw_kept(Kept& kept, const Columns& columns, const std::vector<Draw>& draws,
                        const std::vector<Best>& best, int64_t* tokens, float* confidences) {
  const int* ids = columns.ids != nullptr ? columns.ids->data() : nullptr;
  std::vector<std::exception_ptr> failures(static_cast<size_t>(pool_.size()));  // a team must not throw
  pool_.run([&](Team& team) {
    const Range range = team.share(static_cast<int>(kept.rows.size()));
    try {
      for (size_t i = static_cast<size_t>(range.begin); i < static_cast<size_t>(range.end); ++i) {
        const size_t row = kept.rows[i];
        const Draw& draw = draws[row];
        float* logits = kept.logits.data() + i * static_cast<size_t>(columns.count);
        const std::vector<int> seen = columns.of(draw.path);
        const std::vector<float> before = penalise(logits, seen, draw.sampling.repetition_penalty);
        const int column = sample_column(logits, columns.count, ids, draw.sampling, draw.position);
        tokens[row] = columns.token(column);
        if (confidences == nullptr) continue;
        restore(logits, seen, before);
        confidences[row] = probability(logits[column], best[row].top.value, best[row].sum);
      }
    } catch (...) {
      failures[static_cast<size_t>(team.index())] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

}  // namespace specee
