// One token for each row: the best, or one drawn, and how likely it is.
#pragma once

#include <vector>

#include "cpu/head_columns.h"
#include "cpu/head_stream.h"
#include "cpu/running_best.h"
#include "cpu/sampling.h"
#include "cpu/two_stage_head.h"

namespace specee {

// How to draw the token after one row.
struct Draw {
  Sampling sampling;
  uint64_t position;      // of the token to draw
  std::vector<int> path;  // distinct tokens up to and with the row; not needed without a penalty
};

class Drawing {
 public:
  // `two_stage`: of the same head, or null.
  Drawing(int vocab_size, const Kernels& kernels, ThreadPool& pool, HeadStream& stream,
          TwoStageHead* two_stage = nullptr);

  // `hidden` and `head`: as HeadStream has them.
  void argmax(const std::vector<const float*>& hidden, int64_t* tokens);
  // One Draw a row. `confidences` may be null; else each becomes its token's probability in the softmax of
  // the row's logits as they are. They are added up as they are made, so their last bits depend on the number
  // of members, but not on the rows beside.
  void draw(const std::vector<const float*>& hidden, const std::vector<Draw>& draws, const DraftHead* head,
            int64_t* tokens, float* confidences);

 private:
  struct Kept {                 // logits that a draw needs all at once
    std::vector<size_t> rows;   // which rows have them
    std::vector<size_t> place;  // by row: index into `rows`, or kNone
    std::vector<float> logits;  // rows x columns
  };
  static constexpr size_t kNone = static_cast<size_t>(-1);

  static Kept keep(const std::vector<Draw>& draws, const HeadColumns& columns);
  void draw_kept(Kept& kept, const HeadColumns& columns, const std::vector<Draw>& draws,
                 const RunningBest& running, int64_t* tokens, float* confidences);

  const int vocab_size_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  HeadStream& stream_;
  TwoStageHead* two_stage_;
};

}  // namespace specee
