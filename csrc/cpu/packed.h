// One weight matrix in the kernels' panel layout (see kernels.h), filled row by row from a checkpoint.
#pragma once

#include <vector>

#include "cpu/kernels.h"
#include "cpu/memory.h"

namespace specee {

// Where the rows of one checkpoint tensor go in a packed matrix that several tensors share:
// row n becomes output (first + n), or with interleave, block 2 * (n / 16) + first, lane n % 16.
struct Placement {
  int first = 0;
  bool interleave = false;
  int output(int n) const { return interleave ? (n / kLanes * 2 + first) * kLanes + n % kLanes : first + n; }
};

class PackedMatrix {
 public:
  PackedMatrix() = default;
  // outputs x k, zero until filled. `format` is f32 or bf16.
  PackedMatrix(int outputs, int k, Dtype format, const char* what);

  // rows x k values of type `source`, row-major, rounded to the matrix's format.
  void set_rows(const Placement& placement, int row_begin, int rows, const void* values, Dtype source);
  // Adds an entry to the bias, which exists from then on.
  void set_bias(const Placement& placement, int row_begin, int rows, const void* values, Dtype source);
  // One row as floats (embedding look-up): k values.
  void read_row(int output, float* row) const;

  int outputs() const { return outputs_; }
  int blocks() const { return blocks_; }
  int k() const { return k_; }
  int padded_k() const { return padded_k_; }
  Dtype format() const { return format_; }
  const void* data() const { return memory_.data(); }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }
  size_t bytes() const { return memory_.bytes() + bias_.size() * sizeof(float); }

 private:
  int outputs_ = 0, blocks_ = 0, k_ = 0, padded_k_ = 0;
  Dtype format_ = Dtype::f32;
  Memory memory_;
  std::vector<float> bias_;
};

// values[i] as a float, for any source type.
float element(const void* values, Dtype source, size_t i);

}  // namespace specee
