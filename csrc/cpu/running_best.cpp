#include "cpu/running_best.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace specee {
namespace {

constexpr Scored kNothing{-std::numeric_limits<float>::infinity(), std::numeric_limits<int>::max()};

}  // namespace

float Best::probability(float logit) const {
  return static_cast<float>(std::exp(static_cast<double>(logit) - top.value) / sum);
}

RunningBest::RunningBest(const Kernels& kernels, size_t rows, int members, bool sums)
    : kernels_(kernels),
      rows_(rows),
      sums_(sums),
      best_(rows * static_cast<size_t>(members), Best{kNothing, 0.0}) {}

void RunningBest::see(int member, const HeadPiece& p) {
  Best* own = best_.data() + static_cast<size_t>(member) * rows_ + static_cast<size_t>(p.row);
  for (int r = 0; r < p.rows; ++r)
    for (int at = 0; at < p.columns; at += kHeadRun)
      see(p.of(r) + at, p.begin + at, std::min(kHeadRun, p.columns - at), own[r]);
}

void RunningBest::see(const float* run, int begin, int columns, Best& best) const {
  const float largest = kernels_.largest(run, columns);
  if (largest > best.top.value) {  // runs come lowest columns first
    if (sums_) best.sum *= std::exp(static_cast<double>(best.top.value) - largest);
    for (int i = 0; i < columns; ++i)
      if (better({run[i], begin + i}, best.top)) best.top = {run[i], begin + i};
  }
  if (sums_) best.sum += kernels_.sum_exp(run, columns, best.top.value);
}

Best RunningBest::of(size_t row) const {
  Best merged{kNothing, 0.0};
  for (size_t at = row; at < best_.size(); at += rows_)
    if (better(best_[at].top, merged.top)) merged.top = best_[at].top;
  for (size_t at = row; at < best_.size(); at += rows_)
    merged.sum += best_[at].sum * std::exp(static_cast<double>(best_[at].top.value) - merged.top.value);
  return merged;
}

}  // namespace specee
