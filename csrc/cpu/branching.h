// The best few tokens of each row, for drafts that branch, and how likely each of them is.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/drawing.h"
#include "cpu/head_columns.h"
#include "cpu/head_stream.h"
#include "cpu/running_best.h"

namespace specee {

struct Branch {
  int64_t token;
  float share;
};

// How to branch after one row, and into how many at most.
struct Fork {
  Draw draw;
  int most;
};

class Branching {
 public:
  Branching(int vocab_size, const Kernels& kernels, ThreadPool& pool, HeadStream& stream)
      : vocab_size_(vocab_size), kernels_(kernels), pool_(pool), stream_(stream) {}

  // `hidden` and `head`: as HeadStream has them; one Fork a row. Each row's best_columns(), the first of
  // which is the token that Drawing draws. Shares are those of the softmax of the row's logits as they are;
  // where noise or a penalty has ranked tokens, what they have together is shared out by the softmax of the
  // scores that ranked them. None is over 1.
  std::vector<std::vector<Branch>> draw(const std::vector<const float*>& hidden,
                                        const std::vector<Fork>& forks, const DraftHead* head);

 private:
  std::vector<Branch> of(const Fork& fork, float* logits, const HeadColumns& columns, const Best& best) const;

  const int vocab_size_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  HeadStream& stream_;
};

}  // namespace specee
