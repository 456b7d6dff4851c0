#include "cpu/packed.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "cpu/quant_blocks.h"
#include "specee/errors.h"

namespace specee {

float element(const void* values, WeightType source, size_t i) {
  if (source == WeightType::f32) return static_cast<const float*>(values)[i];
  const uint16_t half = static_cast<const uint16_t*>(values)[i];
  return source == WeightType::bf16 ? bf16_to_float(half) : f16_to_float(half);
}

namespace {

int padded(int k, WeightType type) {
  // Inputs are padded to units of 32, no further.
  if (quant_layout(type).block > kUnit && k % quant_layout(type).block != 0)
    throw ConfigurationError(std::string(weight_type_name(type)) + " needs rows of a multiple of " +
                             std::to_string(quant_layout(type).block) + ", not " + std::to_string(k));
  if (is_quantised(type)) return round_up(k, kUnit);
  return type == WeightType::bf16 ? round_up(k, 2) : k;
}

ptrdiff_t bytes_of_block(int padded_k, WeightType type) {
  if (!is_quantised(type)) return ptrdiff_t{padded_k} * kLanes * (type == WeightType::f32 ? 4 : 2);
  const QuantLayout layout = quant_layout(type);
  return ptrdiff_t{padded_k} / layout.block * layout.packed_bytes();
}

}  // namespace

PackedMatrix::PackedMatrix(int outputs, int k, WeightType type, const char* what)
    : outputs_(outputs),
      blocks_(round_up(outputs, kLanes) / kLanes),
      k_(k),
      padded_k_(padded(k, type)),
      type_(type),
      block_bytes_(bytes_of_block(padded_k_, type)),
      memory_(static_cast<size_t>(blocks_) * static_cast<size_t>(block_bytes_), what) {}

int PackedMatrix::columns() const {
  const QuantLayout layout = quant_layout(type_);
  return is_quantised(type_) ? padded_k_ / layout.block * layout.source_bytes : k_;
}

bool PackedMatrix::takes(WeightType source) const {
  return source == type_ || (!is_quantised(source) && !is_quantised(type_));
}

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

uint16_t to_half(float value, WeightType type) {
  return type == WeightType::bf16 ? float_to_bf16(value) : float_to_f16(value);
}

}  // namespace

void PackedMatrix::set_rows(const Placement& placement, int row_begin, int rows, const void* values,
                            WeightType source) {
  if (is_quantised(type_)) {
    for (int n = 0; n < rows; ++n)
      set_quantised(placement.output(row_begin + n),
                    static_cast<const char*>(values) + static_cast<ptrdiff_t>(n) * columns());
    return;
  }
  for (int n = row_begin; n < row_begin + rows;) {
    const BlockRows run = next_run(placement, n, row_begin + rows);
    const size_t base = static_cast<size_t>(n - row_begin) * k_;
    char* block = memory_.data() + run.block * block_bytes_;
    const auto at = [&](int r, int i) { return base + static_cast<size_t>(r) * k_ + i; };
    const int step = type_ == WeightType::bf16 ? 2 : 1;
    if (type_ == WeightType::f32) {
      float* out = reinterpret_cast<float*>(block);
      pack_run(out, k_, 1, run, [&](int r, int i) { return element(values, source, at(r, i)); });
    } else {
      uint16_t* out = reinterpret_cast<uint16_t*>(block);
      const uint16_t* raw = static_cast<const uint16_t*>(values);
      if (source == type_)
        pack_run(out, k_, step, run, [&](int r, int i) { return raw[at(r, i)]; });
      else
        pack_run(out, k_, step, run,
                 [&](int r, int i) { return to_half(element(values, source, at(r, i)), type_); });
    }
    n += run.count;
  }
}

void PackedMatrix::set_bias(const Placement& placement, int row_begin, int rows, const void* values,
                            WeightType source) {
  bias_.resize(static_cast<size_t>(blocks_) * kLanes);
  for (int n = 0; n < rows; ++n)
    bias_[static_cast<size_t>(placement.output(row_begin + n))] =
        element(values, source, static_cast<size_t>(n));
}

void PackedMatrix::read_row(int output, float* row) const {
  const int lane = output % kLanes;
  if (is_quantised(type_)) {
    read_quantised(output, row);
  } else if (type_ == WeightType::f32) {
    const float* from = reinterpret_cast<const float*>(block(output)) + lane;
    for (int i = 0; i < k_; ++i) row[i] = from[static_cast<size_t>(i) * kLanes];
  } else {
    const int step = type_ == WeightType::bf16 ? 2 : 1;
    const uint16_t* from = reinterpret_cast<const uint16_t*>(block(output)) + lane * step;
    for (int i = 0; i < k_; ++i)
      row[i] = element(from, type_, static_cast<size_t>(i / step) * kLanes * step + i % step);
  }
}

void PackedMatrix::copy_row(const PackedMatrix& source, int from, int to) {
  if (is_quantised(type_)) return copy_quantised(source, from, to);
  const size_t bytes = type_ == WeightType::f16 ? 2 : 4;  // of one lane at each step: a pair of bf16
  const size_t step = bytes * kLanes;
  const char* read = source.block(from) + static_cast<size_t>(from % kLanes) * bytes;
  char* write = block(to) + static_cast<size_t>(to % kLanes) * bytes;
  for (size_t at = 0; at < static_cast<size_t>(block_bytes_); at += step)
    std::memcpy(write + at, read + at, bytes);
}

void PackedMatrix::copy_quantised(const PackedMatrix& source, int from, int to) {
  for (int i = 0; i < padded_k_ / quant_layout(type_).block; ++i)
    copy_block(type_, source.block(from), from % kLanes, block(to), to % kLanes, i);
}

void PackedMatrix::set_quantised(int output, const char* row) {
  const QuantLayout layout = quant_layout(type_);
  QuantBlock values;
  for (int i = 0; i < padded_k_ / layout.block; ++i) {
    const uint8_t* source = reinterpret_cast<const uint8_t*>(row) + i * layout.source_bytes;
    if (store_source(type_, source, block(output), i, output % kLanes)) continue;
    unpack_source(type_, source, values);
    store_block(type_, values, block(output), i, output % kLanes);
  }
}

void PackedMatrix::read_quantised(int output, float* row) const {
  const int size = quant_layout(type_).block;
  QuantBlock values;
  for (int i = 0; i < padded_k_ / size; ++i) {
    load_block(type_, block(output), i, output % kLanes, values);
    weights_of(type_, values, std::min(size, k_ - i * size), row + i * size);
  }
}

}  // namespace specee
