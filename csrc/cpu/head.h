// Logits of rows at any depth: all of them, or the k best.
#pragma once

#include <vector>

#include "cpu/head_stream.h"

namespace specee {

class Head {
 public:
  Head(int vocab_size, HeadStream& stream, int members);

  // `hidden` and `head`: as HeadStream has them. out: rows x vocab_size, minus infinity for tokens that the
  // head does not have.
  void logits(const std::vector<const float*>& hidden, const DraftHead* head, float* out);
  // ids and values are rows x k, best first, lower id first among equals.
  // The head must have so many.
  void topk(const std::vector<const float*>& hidden, const DraftHead* head, int k, int64_t* ids,
            float* values);

 private:
  const size_t vocab_size_;
  HeadStream& stream_;
  const size_t members_;
};

}  // namespace specee
