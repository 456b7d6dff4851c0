// Merged scoring of speculative tokens (Xu et al., "SpecEE", 2025): the final norm and the head's product for
// a few candidates of each row, instead of the whole vocabulary.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "cpu/inputs.h"
#include "cpu/packed.h"
#include "cpu/thread_pool.h"
#include "cpu/weights.h"

namespace specee {

inline constexpr int kMaxCandidates = 16;  // of a row: one block of a packed matrix

// Tokens that may come next, and their rows of the head: the first lanes of one block of a matrix, which
// those gathered with them share.
struct Candidates {
  std::vector<int> tokens;
  std::shared_ptr<const PackedMatrix> rows;
  int block;
};

class Scoring {
 public:
  Scoring(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels, ThreadPool& pool);

  // For each row its tokens. Throws RowError for none of them, more than kMaxCandidates, one outside the
  // vocabulary, or one given twice.
  std::vector<Candidates> gather(const std::vector<std::vector<int>>& tokens) const;

  // For each hidden state (hidden_size floats) the logits of its candidates, in their order, with the bits
  // that they have in the whole head. Members call consume(row, logits) at the same time, each for rows of
  // its own; it must not throw. Throws NumericalError afterwards if a normed state was not finite.
  template <class Consume>
  void run(const std::vector<const float*>& hidden, const std::vector<const Candidates*>& candidates,
           const Consume& consume) {
    std::vector<char> finite(static_cast<size_t>(pool_.size()), 1);
    pool_.run([&](Team& team) {
      const Range rows = team.share(static_cast<int>(hidden.size()));
      for (int row = rows.begin; row < rows.end; ++row) {
        const size_t at = static_cast<size_t>(row);
        std::array<float, kMaxCandidates> logits;
        if (!score(team, hidden[at], *candidates[at], logits.data()))
          finite[static_cast<size_t>(team.index())] = 0;
        consume(row, logits.data());
      }
    });
    check(finite);
  }

 private:
  // Whether the normed state is finite.
  bool score(Team& team, const float* hidden, const Candidates& candidates, float* logits);
  void check(const std::vector<int>& tokens) const;
  static void check(const std::vector<char>& finite);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  Forms forms_;
  Inputs inputs_;
};

}  // namespace specee
