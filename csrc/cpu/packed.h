// One weight matrix in the kernels' panel layout (see kernels.h), filled row by row from a checkpoint.
#pragma once

#include <vector>

#include "cpu/kernels.h"
#include "cpu/memory.h"
#include "specee/formats.h"

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
  // outputs x k, zero until filled.
  PackedMatrix(int outputs, int k, WeightType type, const char* what);

  // What set_rows takes for one row: k floats, or the bytes of its checkpoint blocks.
  int columns() const;
  // Whether set_rows takes rows of this type: the matrix's own, or floats for a matrix of floats.
  bool takes(WeightType source) const;
  // rows x columns() of type `source`, row-major; floats are rounded to the matrix's format.
  void set_rows(const Placement& placement, int row_begin, int rows, const void* values, WeightType source);
  // Adds an entry to the bias, which exists from then on.
  void set_bias(const Placement& placement, int row_begin, int rows, const void* values, WeightType source);
  // One row as floats (embedding look-up), as the checkpoint format defines them: k values.
  void read_row(int output, float* row) const;

  // Row `from` of a matrix of the same k and type, bit for bit, into row `to`, which was never set. Biases
  // are not copied.
  void copy_row(const PackedMatrix& source, int from, int to);

  int outputs() const { return outputs_; }
  int blocks() const { return blocks_; }
  int k() const { return k_; }
  int padded_k() const { return padded_k_; }
  WeightType type() const { return type_; }
  const char* data() const { return memory_.data(); }
  ptrdiff_t block_bytes() const { return block_bytes_; }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }
  size_t bytes() const { return memory_.bytes() + bias_.size() * sizeof(float); }

 private:
  void set_quantised(int output, const char* row);
  void copy_quantised(const PackedMatrix& source, int from, int to);
  void read_quantised(int output, float* row) const;
  char* block(int output) const { return memory_.data() + output / kLanes * block_bytes_; }

  int outputs_ = 0, blocks_ = 0, k_ = 0, padded_k_ = 0;
  WeightType type_ = WeightType::f32;
  ptrdiff_t block_bytes_ = 0;
  Memory memory_;
  std::vector<float> bias_;
};

// values[i] as a float, for any source of floats.
float element(const void* values, WeightType source, size_t i);

}  // namespace specee
