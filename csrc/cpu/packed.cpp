#include "cpu/packed.h"

namespace specee {

float element(const void* values, Dtype source, size_t i) {
  if (source == Dtype::f32) return static_cast<const float*>(values)[i];
  const uint16_t half = static_cast<const uint16_t*>(values)[i];
  return source == Dtype::bf16 ? bf16_to_float(half) : f16_to_float(half);
}

PackedMatrix::PackedMatrix(int outputs, int k, Dtype format, const char* what)
    : outputs_(outputs),
      blocks_(round_up(outputs, kLanes) / kLanes),
      k_(k),
      padded_k_(format == Dtype::bf16 ? round_up(k, 2) : k),
      format_(format),
      memory_(static_cast<size_t>(blocks_) * padded_k_ * kLanes * dtype_bytes(format), what) {}

namespace {

struct BlockRows {
  int block;  // first output row's block
  int count;  // consecutive rows that fall into it
  int lane;   // lane of the first
};

// The run of rows from `n` on that lands in one block in consecutive lanes.
BlockRows next_run(const Placement& placement, int n, int end) {
  const int output = placement.output(n);
  const int lane = output % kLanes;
  int count = kLanes - lane;
  if (placement.interleave && count > kLanes - n % kLanes) count = kLanes - n % kLanes;
  return {output / kLanes, count < end - n ? count : end - n, lane};
}

// K-outer, so that writes are sequential; `count` read streams.
template <class Out, class Convert>
void pack_run(Out* block, int k, int step, const BlockRows& run, Convert value) {
  for (int i = 0; i < k; ++i)
    for (int r = 0; r < run.count; ++r)
      block[(i / step * kLanes + run.lane + r) * step + i % step] = value(r, i);
}

}  // namespace

void PackedMatrix::set_rows(const Placement& placement, int row_begin, int rows, const void* values,
                            Dtype source) {
  for (int n = row_begin; n < row_begin + rows;) {
    const BlockRows run = next_run(placement, n, row_begin + rows);
    const size_t base = static_cast<size_t>(n - row_begin) * k_;
    const size_t block = static_cast<size_t>(run.block) * padded_k_ * kLanes;
    const auto at = [&](int r, int i) { return base + static_cast<size_t>(r) * k_ + i; };
    if (format_ == Dtype::f32) {
      float* out = reinterpret_cast<float*>(memory_.data()) + block;
      pack_run(out, k_, 1, run, [&](int r, int i) { return element(values, source, at(r, i)); });
    } else {
      uint16_t* out = reinterpret_cast<uint16_t*>(memory_.data()) + block;
      const uint16_t* raw = static_cast<const uint16_t*>(values);
      if (source == Dtype::bf16)
        pack_run(out, k_, 2, run, [&](int r, int i) { return raw[at(r, i)]; });
      else
        pack_run(out, k_, 2, run,
                 [&](int r, int i) { return float_to_bf16(element(values, source, at(r, i))); });
    }
    n += run.count;
  }
}

void PackedMatrix::set_bias(const Placement& placement, int row_begin, int rows, const void* values,
                            Dtype source) {
  bias_.resize(static_cast<size_t>(blocks_) * kLanes);
  for (int n = 0; n < rows; ++n)
    bias_[static_cast<size_t>(placement.output(row_begin + n))] =
        element(values, source, static_cast<size_t>(n));
}

void PackedMatrix::read_row(int output, float* row) const {
  const size_t block = static_cast<size_t>(output / kLanes) * padded_k_ * kLanes;
  const int lane = output % kLanes;
  if (format_ == Dtype::f32) {
    const float* from = reinterpret_cast<const float*>(memory_.data()) + block + lane;
    for (int i = 0; i < k_; ++i) row[i] = from[static_cast<size_t>(i) * kLanes];
  } else {
    const uint16_t* from = reinterpret_cast<const uint16_t*>(memory_.data()) + block + lane * 2;
    for (int i = 0; i < k_; ++i)
      row[i] = bf16_to_float(from[static_cast<size_t>(i / 2) * kLanes * 2 + i % 2]);
  }
}

}  // namespace specee
