#include "cpu/drawing.h"

#include <algorithm>
#include <cstring>
#include <exception>

namespace specee {
Drawing::Drawing(int vocab_size, const Kernels& kernels, ThreadPool& pool, HeadStream& stream,
                 TwoStageHead* two_stage)
    : vocab_size_(vocab_size), kernels_(kernels), pool_(pool), stream_(stream), two_stage_(two_stage) {}

void Drawing::argmax(const std::vector<const float*>& hidden, int64_t* tokens) {
  draw(hidden, std::vector<Draw>(hidden.size()), nullptr, tokens, nullptr);
}

void Drawing::draw(const std::vector<const float*>& hidden, const std::vector<Draw>& draws,
                   const DraftHead* head, int64_t* tokens, float* confidences) {
  const auto plain = [](const Draw& one) { return one.sampling.plain_greedy(); };
  if (two_stage_ != nullptr && head == nullptr && confidences == nullptr &&
      std::all_of(draws.begin(), draws.end(), plain) && two_stage_->argmax(hidden, tokens))
    return;
  const HeadColumns columns(vocab_size_, head);
  const size_t rows = hidden.size(), width = static_cast<size_t>(columns.count);
  Kept kept = keep(draws, columns);
  RunningBest running(kernels_, rows, pool_.size(), confidences != nullptr);
  stream_.run(hidden, head, [&](int member, const HeadPiece& p) {
    for (int r = 0; r < p.rows; ++r) {
      const size_t place = kept.place[static_cast<size_t>(p.row + r)];
      if (place != kNone)
        std::memcpy(kept.logits.data() + place * width + p.begin, p.of(r),
                    static_cast<size_t>(p.columns) * sizeof(float));
    }
    running.see(member, p);
  });
  for (size_t row = 0; row < rows; ++row) {
    const Best best = running.of(row);
    tokens[row] = columns.token(best.top.token);
    if (confidences != nullptr) confidences[row] = best.probability();
  }
  if (!kept.rows.empty()) draw_kept(kept, columns, draws, running, tokens, confidences);
}

Drawing::Kept Drawing::keep(const std::vector<Draw>& draws, const HeadColumns& columns) {
  Kept kept;
  for (size_t row = 0; row < draws.size(); ++row) {
    const bool plain = draws[row].sampling.plain_greedy();
    kept.place.push_back(plain ? kNone : kept.rows.size());
    if (!plain) kept.rows.push_back(row);
  }
  kept.logits.resize(kept.rows.size() * static_cast<size_t>(columns.count));
  return kept;
}

void Drawing::draw_kept(Kept& kept, const HeadColumns& columns, const std::vector<Draw>& draws,
                        const RunningBest& running, int64_t* tokens, float* confidences) {
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
        const int column =
            sample_column(logits, columns.count, columns.tokens(), draw.sampling, draw.position);
        tokens[row] = columns.token(column);
        if (confidences == nullptr) continue;
        restore(logits, seen, before);
        confidences[row] = running.of(row).probability(logits[column]);
      }
    } catch (...) {
      failures[static_cast<size_t>(team.index())] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

}  // namespace specee
