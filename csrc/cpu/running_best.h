// The best logit of each row, and the sum of its softmax, while logits come a piece at a time and are
// forgotten.
#pragma once

#include <vector>

#include "cpu/head_stream.h"
#include "cpu/scored.h"

namespace specee {

struct Best {
  Scored top;  // its column, which is the token in a whole head
  double sum;  // of exp(logit - top.value)

  // Of a column with this logit. In double: at most 1, since the largest logit's own term in the sum is 1.
  float probability(float logit) const;
  float probability() const { return probability(top.value); }
};

class RunningBest {
 public:
  // Sums are kept only if they are to be.
  RunningBest(const Kernels& kernels, size_t rows, int members, bool sums);

  // What HeadStream's consume() is called with. Runs are cut alike whatever the pieces are, so that a sum
  // does not depend on the rows beside; its last bits do on the number of members.
  void see(int member, const HeadPiece& piece);
  // When all has been seen.
  Best of(size_t row) const;

 private:
  void see(const float* run, int begin, int columns, Best& best) const;

  const Kernels& kernels_;
  const size_t rows_;
  const bool sums_;
  std::vector<Best> best_;  // members x rows
};

}  // namespace specee
