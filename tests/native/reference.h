// What the kernels compute, written the obvious way; and how far from exact arithmetic they may be.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "cpu/kernels.h"

namespace native {

inline constexpr double kUnit = 0x1p-24;  // unit round-off of fp32

// Whether an instruction set fuses its multiply-adds.
inline bool fuses(const specee::Kernels& kernels) {
#ifdef __FP_FAST_FMAF
  (void)kernels;
  return true;
#else
  return std::strcmp(kernels.name, "portable") != 0;
#endif
}

inline float multiply_add(bool fused, float a, float b, float c) {
  if (fused) return std::fma(a, b, c);
  const float product = a * b;
  return product + c;
}

// One chain over k: the promise of kernels.h, to the bit.
inline float dot_chain(bool fused, const float* x, const float* w, int k) {
  float sum = 0.0f;
  for (int i = 0; i < k; ++i) sum = multiply_add(fused, w[i], x[i], sum);
  return sum;
}

inline double dot_exact(const float* x, const float* w, int k) {
  double sum = 0.0;
  for (int i = 0; i < k; ++i) sum += static_cast<double>(x[i]) * w[i];
  return sum;
}

inline double dot_magnitude(const float* x, const float* w, int k) {
  double sum = 0.0;
  for (int i = 0; i < k; ++i) sum += std::fabs(static_cast<double>(x[i]) * w[i]);
  return sum;
}

// Error bound of any order of k fp32 multiply-adds (Higham, "Accuracy and Stability", section 3.1), and of
// products that hardware flushes to zero.
inline double dot_bound(const float* x, const float* w, int k) {
  return (k + 2) * kUnit * dot_magnitude(x, w, k) + k * 0x1p-125;
}

inline double silu_exact(double x) { return x / (1.0 + std::exp(-x)); }

// exp within 2 ulp, a sum, a quotient and a product; and what clamping the exponent at 88 can hide.
inline double swiglu_bound(double exact) { return 6 * 2 * kUnit * std::fabs(exact) + 1e-33; }

inline std::vector<double> rms_norm_exact(const std::vector<float>& x, const std::vector<float>& w,
                                          double eps) {
  double squares = 0.0;
  for (const float value : x) squares += static_cast<double>(value) * value;
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  std::vector<double> y;
  for (size_t i = 0; i < x.size(); ++i) y.push_back(x[i] * scale * w[i]);
  return y;
}

// Sixteen chains of n / 16 terms and a tree; half of it passes through the root; then five roundings.
inline double rms_norm_bound(double exact, size_t n) {
  return (static_cast<double>(n) / 32 + 8) * kUnit * std::fabs(exact) + 0x1p-140;
}

// Attention of one head over rows already in logical order.
struct AttentionProblem {
  const float* q;
  const std::vector<std::vector<float>>& keys;
  const std::vector<std::vector<float>>& values;
  int begin, end, head_dim;
  float scale;
};

struct AttentionAnswer {
  std::vector<double> out, bound;
};

inline AttentionAnswer attention_exact(const AttentionProblem& problem) {
  const int dim = problem.head_dim;
  std::vector<double> scores;
  double top = -HUGE_VAL, sum = 0.0, score_error = 0.0;
  for (int p = problem.begin; p < problem.end; ++p) {
    const float* key = problem.keys[static_cast<size_t>(p)].data();
    scores.push_back(problem.scale * dot_exact(problem.q, key, dim));
    top = std::max(top, scores.back());
    const double products = problem.scale * dot_bound(problem.q, key, dim);
    score_error = std::max(score_error, products + 4 * kUnit * std::fabs(scores.back()));
  }
  for (double& score : scores) {
    score_error = std::max(score_error, 2 * kUnit * std::fabs(score - top));
    score = std::exp(score - top);
    sum += score;
  }
  // An error e in a score changes its weight by a factor of 1 + e, twice with the sum below it; exp adds 2
  // ulp.
  const double n = static_cast<double>(scores.size());
  const double relative = 2 * (3 * score_error + 4 * kUnit) + (2 * n + 8) * kUnit;
  AttentionAnswer answer;
  for (int d = 0; d < dim; ++d) {
    double out = 0.0, magnitude = 0.0, largest = 0.0;
    for (int p = problem.begin; p < problem.end; ++p) {
      const double value = problem.values[static_cast<size_t>(p)][static_cast<size_t>(d)];
      const double weight = scores[static_cast<size_t>(p - problem.begin)] / sum;
      out += weight * value;
      magnitude += weight * std::fabs(value);
      largest = std::max(largest, std::fabs(value));
    }
    answer.out.push_back(out);
    answer.bound.push_back(relative * magnitude + n * 2e-38 * largest + 0x1p-140);
  }
  return answer;
}

}  // namespace native
