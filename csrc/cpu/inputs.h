// Rows of activations in the form a product wants them: floats (rounded to bf16 for bf16 weights), or packed
// bf16.
#pragma once

#include <vector>

#include "cpu/kernels.h"
#include "cpu/packed.h"
#include "cpu/thread_pool.h"

namespace specee {

// What LinearCall needs to know of its inputs.
struct InputRows {
  const void* data;
  ptrdiff_t stride;
};

class Inputs {
 public:
  // `width`: the largest inner size of any product.
  Inputs(const Kernels& kernels, Dtype format, int width, int threads);

  // Fills `rows` rows by calling fill(row, floats) and rounds them. Few rows: every member prepares all of
  // them for itself, which is cheaper than waiting. Many rows: shared out, with a barrier at the end.
  template <class Fill>
  InputRows prepare(Team& team, int rows, int k, const Fill& fill) {
    const bool alone = rows <= kRowsAlone;
    Buffer& buffer = buffers_[alone ? static_cast<size_t>(team.index()) + 1 : 0];
    const Range range = alone ? Range{0, rows} : team.share(rows);
    for (int r = range.begin; r < range.end; ++r) {
      float* row = buffer.floats.data() + static_cast<size_t>(r) * stride_;
      fill(r, row);
      finish_row(buffer, r, row, k);
    }
    if (!alone) team.barrier();
    if (packed_) return {buffer.halves.data(), stride_};
    return {buffer.floats.data(), stride_};
  }

 private:
  static constexpr int kRowsAlone = 8;
  struct Buffer {
    std::vector<float> floats;
    std::vector<uint16_t> halves;
  };
  void finish_row(Buffer& buffer, int r, float* row, int k) const;

  bool rounds_, packed_;
  ptrdiff_t stride_;
  std::vector<Buffer> buffers_;  // [0] shared, [1 + i] member i's own
};

// The product of a packed matrix and prepared rows, over this member's share of the blocks.
void linear_share(Team& team, const Kernels& kernels, const PackedMatrix& matrix, const InputRows& inputs,
                  int rows, int outputs, float* y, ptrdiff_t y_stride, Epilogue epilogue);

// Starts fetching the first weights of this member's share into its cache. Called before waiting at the
// barrier in front of that product, so that memory works while the member waits.
void fetch_share(Team& team, const PackedMatrix& matrix, Epilogue epilogue);

// The same over chosen blocks.
LinearCall linear_call(const PackedMatrix& matrix, const InputRows& inputs, int rows, int outputs, float* y,
                       ptrdiff_t y_stride, Epilogue epilogue);
void run_linear(const Kernels& kernels, const PackedMatrix& matrix, const LinearCall& call);

}  // namespace specee
