// A copy of the head in fewer bytes, and bounds on how far its logits may be from the head's own: the first
// stage of an exact argmax (two_stage_head.h).
//
// Weights are rounded to Q4_1. Of the inputs that matter most (outliers: a few hold most of a state's energy)
// the error is kept as well, in Q4_1 again. For an output with weights w, their coarse copies c, and r for
// the kept errors of the inputs O, and for inputs x that the head multiplies, and their rounded copies y
// (all) and z (of O):
//   w x - (c y + r z) = w (x - y) + sum over groups G of (w - c)_G y_G + ((w - c)_O - r) y_O + r (y_O - z)
// and each term is at most the product of two norms (Cauchy and Schwarz). Those of weights are kept here.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/packed.h"
#include "cpu/thread_pool.h"

namespace specee {

class CoarseHead {
 public:
  static constexpr int kGroups = 4;
  // Of the bound: w, (w - c)_G of each group, (w - c)_O - r, r.
  static constexpr int kTerms = kGroups + 3;
  static_assert(kTerms == kBoundTerms);

  // Bytes that a step reads of a copy of this head, and whether that is clearly less than the head.
  static size_t bytes_for(const PackedMatrix& head);
  static bool pays(const PackedMatrix& head);
  // `final_norm`: what scales the head's inputs. Every row of the head must be there.
  CoarseHead(const PackedMatrix& head, const std::vector<float>& final_norm, ThreadPool& pool);

  // Whether all weights and bounds are finite numbers in fp16; else nothing can be said by it.
  bool finite() const { return finite_; }
  const PackedMatrix& coarse() const { return coarse_; }
  // Errors of the outliers, in the order of order().
  const PackedMatrix& errors() const { return errors_; }
  // Inputs: outliers first, then group after group; and where each of these parts is, outliers being part 0.
  const std::vector<int>& order() const { return order_; }
  Range part(int index) const;
  // Of the 16 outputs of a block, term by term, in bf16: never less than what they are.
  const uint16_t* norms(int block) const { return norms_.data() + block * kTerms * kLanes; }
  // Of any output's weights.
  double largest_norm() const { return largest_norm_; }

 private:
  class Rows;
  static std::vector<int> by_weight(const PackedMatrix& head, const std::vector<float>& final_norm);

  PackedMatrix coarse_, errors_;
  std::vector<int> order_;
  std::vector<uint16_t> norms_;
  double largest_norm_ = 0;
  bool finite_ = true;
};

// At least the norm of some numbers, added up in eight sums.
double norm_of(const float* values, int count);

}  // namespace specee
