// Rows of activations in the forms that products want them (kernels.h, InputForm).
#pragma once

#include <array>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/packed.h"
#include "cpu/thread_pool.h"

namespace specee {

// A set of InputForms.
class Forms {
 public:
  void add(InputForm form) { bits_ |= 1u << static_cast<int>(form); }
  void add(const Forms& other) { bits_ |= other.bits_; }
  bool has(InputForm form) const { return (bits_ >> static_cast<int>(form) & 1u) != 0; }

 private:
  unsigned bits_ = 0;
};

// The forms that products with these matrices want.
Forms forms_of(const Kernels& kernels, const std::vector<const PackedMatrix*>& matrices);

// Prepared rows, by form; only the forms that were asked for are there.
struct InputRows {
  std::array<const void*, kInputForms> data{};
  std::array<ptrdiff_t, kInputForms> stride{};
};

class Inputs {
 public:
  // `forms`: all that will be asked for. `width`: the largest inner size of any product.
  Inputs(const Kernels& kernels, const Forms& forms, int width, int threads);

  // Fills `rows` rows by calling fill(row, floats) and brings them into `forms`. Few rows: every member
  // prepares all of them for itself, which is cheaper than waiting. Many rows: shared out, with a barrier at
  // the end.
  template <class Fill>
  InputRows prepare(Team& team, int rows, int k, const Forms& forms, const Fill& fill) {
    const bool alone = rows <= kRowsAlone;
    Buffer& buffer = buffers_[alone ? static_cast<size_t>(team.index()) + 1 : 0];
    const Range range = alone ? Range{0, rows} : team.share(rows);
    for (int r = range.begin; r < range.end; ++r) {
      fill(r, buffer.floats.data() + r * stride_);
      convert(buffer, r, k, forms);
    }
    if (!alone) team.barrier();
    return view(buffer);
  }

 private:
  static constexpr int kRowsAlone = 8;
  struct Buffer {
    std::vector<float> floats, rounded;
    std::vector<uint16_t> halves;
    std::vector<QuantUnit> units;
  };
  void convert(Buffer& buffer, int r, int k, const Forms& forms) const;
  InputRows view(const Buffer& buffer) const;

  const Kernels& kernels_;
  ptrdiff_t stride_;             // floats, rounded, halves: elements of a row
  ptrdiff_t unit_stride_;        // units: of a row
  std::vector<Buffer> buffers_;  // [0] shared, [1 + i] member i's own
};

// The product of a packed matrix and prepared rows, over the given blocks; all of them in linear_call().
LinearCall linear_call(const Kernels& kernels, const PackedMatrix& matrix, const InputRows& inputs, int rows,
                       int outputs, float* y, ptrdiff_t y_stride, Epilogue epilogue);
void run_linear(const Kernels& kernels, const PackedMatrix& matrix, const LinearCall& call);
// The same over blocks that are a member's share, fetching from its stream.
void run_share(const Kernels& kernels, const PackedMatrix& matrix, LinearCall call, Range blocks,
               WeightStream* stream);

}  // namespace specee
