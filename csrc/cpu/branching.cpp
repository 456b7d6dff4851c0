#include "cpu/branching.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>

namespace specee {
namespace {

// What the tokens have together, by the scores that ranked them.
void share_out(std::vector<Branch>& branches, const std::vector<Ranked>& ranked) {
  double together = 0.0, total = 0.0;
  for (const Branch& branch : branches) together += branch.share;
  for (const Ranked& one : ranked) total += std::exp(one.score - ranked.front().score);
  for (size_t i = 0; i < ranked.size(); ++i) {
    const double part = std::exp(ranked[i].score - ranked.front().score) / total;
    branches[i].share = static_cast<float>(std::min(1.0, together * part));
  }
}

}  // namespace

std::vector<std::vector<Branch>> Branching::draw(const std::vector<const float*>& hidden,
                                                 const std::vector<Fork>& forks, const DraftHead* head) {
  const HeadColumns columns(vocab_size_, head);
  const size_t rows = hidden.size(), width = static_cast<size_t>(columns.count);
  std::vector<float> logits(rows * width);
  RunningBest running(kernels_, rows, pool_.size(), true);
  stream_.run(hidden, head, [&](int member, const HeadPiece& p) {
    for (int r = 0; r < p.rows; ++r)
      std::memcpy(logits.data() + static_cast<size_t>(p.row + r) * width + p.begin, p.of(r),
                  static_cast<size_t>(p.columns) * sizeof(float));
    running.see(member, p);
  });
  std::vector<std::vector<Branch>> found(rows);
  std::vector<std::exception_ptr> failures(static_cast<size_t>(pool_.size()));  // a team must not throw
  pool_.run([&](Team& team) {
    const Range range = team.share(static_cast<int>(rows));
    try {
      for (size_t row = static_cast<size_t>(range.begin); row < static_cast<size_t>(range.end); ++row)
        found[row] = of(forks[row], logits.data() + row * width, columns, running.of(row));
    } catch (...) {
      failures[static_cast<size_t>(team.index())] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
  return found;
}

std::vector<Branch> Branching::of(const Fork& fork, float* logits, const HeadColumns& columns,
                                  const Best& best) const {
  const Draw& draw = fork.draw;
  const std::vector<int> seen = columns.of(draw.path);
  const std::vector<float> before = penalise(logits, seen, draw.sampling.repetition_penalty);
  const std::vector<Ranked> ranked =
      best_columns(logits, columns.count, columns.tokens(), draw.sampling, draw.position, fork.most);
  restore(logits, seen, before);
  std::vector<Branch> branches;
  for (const Ranked& one : ranked)
    branches.push_back({columns.token(one.column), std::min(1.0f, best.probability(logits[one.column]))});
  if (!draw.sampling.plain_greedy()) share_out(branches, ranked);
  return branches;
}

}  // namespace specee
