// The likeliest token of each row, exactly, from fewer bytes than the head has: a coarse copy of the head
// says which tokens can be it, and the head itself which of them is.
#pragma once

#include <memory>
#include <vector>

#include "cpu/coarse_head.h"
#include "cpu/costs.h"
#include "cpu/head_stream.h"
#include "cpu/scored.h"

namespace specee {

class TwoStageHead {
 public:
  static constexpr int kMostRows = 4;  // more are bound by arithmetic, of which two stages have as much

  // The head may have no rows yet.
  TwoStageHead(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels,
               ThreadPool& pool, Costs& costs, HeadStream& stream);
  // All rows are there: the coarse copy is made where one pays, once there have been enough calls.
  void complete();
  // Now. Throws OutOfMemoryError.
  void make();
  // Whether calls may use it, from now on whatever they were like before; off, it answers none.
  void enable(bool on) {
    on_ = on;
    work_ = resting_ = 0;
  }
  const CoarseHead* coarse() const { return on_ ? coarse_.get() : nullptr; }

  // Calls that it has answered, and how many heads their second stages have read, all together.
  int64_t answered() const { return answered_; }
  double reread() const { return reread_; }
  // Of a copy, which there is or may be; 0 if there will be none.
  size_t bytes() const { return pays_ ? CoarseHead::bytes_for(weights_.head()) : 0; }

  // `hidden`: as HeadStream has it. The token with the largest logit of each row, the lowest among equals;
  // the same bits decide as in HeadStream's products. False if it cannot say: for many rows, for numbers that
  // overflow, and for a while where so many tokens came into question that nothing was saved. Throws
  // NumericalError as HeadStream does.
  bool argmax(const std::vector<const float*>& hidden, int64_t* tokens);

 private:
  struct Row {
    int likely = 0;           // block of the largest coarse logit
    float largest;            // that one
    Scored best;              // of exact logits
    std::vector<float> most;  // that logits can be, by block of the member's share
  };
  struct Member {
    Range blocks;                                          // its share
    std::vector<float> piece;                              // logits
    std::vector<QuantUnit> units;                          // inputs of CoarseHead::errors(), quantised
    std::vector<float> exact, rounded, ordered, outliers;  // of a row, while it is bounded
    float bounds[kMostRows][kBoundTerms + 1];              // see ScreenCall
    std::vector<Row> rows;
    int exact_blocks = 0;
    bool lost = false;  // it cannot say
  };

  bool ready();
  void bound_rows(const InputRows& inputs, int rows, Member& own);
  void exact_inputs(const InputRows& inputs, int row, Member& own) const;
  void bound_row(Member& own, float* bound) const;
  void screen(const InputRows& inputs, int rows, Member& own);
  void screen_piece(int begin, int end, int rows, int width, Member& own) const;
  // The exact logits of a block's outputs, offered to the row.
  void settle_block(const InputRows& inputs, int r, int block, Row& row);
  // All blocks of the member's share in which a logit may be as large as `floor`.
  void settle(const InputRows& inputs, int rows, const float (&floor)[kMostRows], Member& own);
  void note_work();

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  Costs& costs_;
  HeadStream& stream_;
  std::unique_ptr<const CoarseHead> coarse_;
  std::vector<Member> members_;
  bool on_ = true, pays_ = false;
  int64_t calls_until_made_ = 0;
  int64_t answered_ = 0;
  double reread_ = 0;
  double work_ = 0;  // share of the head that second stages read of late
  int resting_ = 0;  // calls until it is tried again
};

}  // namespace specee
