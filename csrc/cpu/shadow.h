// What states would draft: the most likely token of each and its probability, for many states at once.
#pragma once

#include <vector>

#include "cpu/head_stream.h"

namespace specee {

// All states, of any rows and layers, are rows of one product with the head, which is read once for each 64
// of them; logits are looked at as they are made, and never stored. A result is that of Drawing::draw() with
// plain greedy: the lowest id among equals, whatever states are beside, and confidences as there.
class Shadow {
 public:
  Shadow(const Kernels& kernels, ThreadPool& pool, HeadStream& stream);

  // `states` and `head`: as HeadStream has them. A token and a confidence a state.
  void run(const std::vector<const float*>& states, const DraftHead* head, int64_t* tokens,
           float* confidences);

 private:
  const Kernels& kernels_;
  ThreadPool& pool_;
  HeadStream& stream_;
};

}  // namespace specee
