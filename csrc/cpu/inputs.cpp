#include "cpu/inputs.h"

#include <algorithm>

namespace specee {

Inputs::Inputs(const Kernels& kernels, Dtype format, int width, int threads)
    : rounds_(format == Dtype::bf16),
      packed_(format == Dtype::bf16 && kernels.packs_bf16_inputs),
      stride_(round_up(width, kLanes)),
      buffers_(static_cast<size_t>(threads) + 1) {
  for (size_t i = 0; i < buffers_.size(); ++i) {
    const size_t size = static_cast<size_t>(i == 0 ? kMaxRows : kRowsAlone) * stride_;
    buffers_[i].floats.resize(size);
    if (packed_) buffers_[i].halves.resize(size);
  }
}

void Inputs::finish_row(Buffer& buffer, int r, float* row, int k) const {
  if (!rounds_) return;
  const int padded = round_up(k, 2);
  if (padded > k) row[k] = 0.0f;  // meets a zero weight; must not be a leftover NaN or infinity
  if (packed_) {
    uint16_t* half = buffer.halves.data() + static_cast<size_t>(r) * stride_;
    for (int i = 0; i < padded; ++i) half[i] = float_to_bf16(row[i]);
  } else {
    for (int i = 0; i < k; ++i) row[i] = round_to_bf16(row[i]);
  }
}

LinearCall linear_call(const PackedMatrix& matrix, const InputRows& inputs, int rows, int outputs, float* y,
                       ptrdiff_t y_stride, Epilogue epilogue) {
  LinearCall call;
  call.weights = matrix.data();
  call.bias = matrix.bias();
  call.k = matrix.padded_k();
  call.x = inputs.data;
  call.x_stride = inputs.stride;
  call.rows = rows;
  call.block_begin = 0;
  call.block_end = matrix.blocks();
  call.ahead_end = matrix.blocks();
  call.outputs = outputs;
  call.y = y;
  call.column_origin = 0;
  call.y_stride = y_stride;
  call.epilogue = epilogue;
  return call;
}

void run_linear(const Kernels& kernels, const PackedMatrix& matrix, const LinearCall& call) {
  if (call.block_begin == call.block_end) return;
  (matrix.format() == Dtype::bf16 ? kernels.linear_bf16 : kernels.linear_f32)(call);
}

namespace {

// This member's blocks: a gate block stays with its up block.
Range share_blocks(const Team& team, const PackedMatrix& matrix, Epilogue epilogue) {
  const int together = epilogue == Epilogue::swiglu ? 2 : 1;
  const Range range = team.share(matrix.blocks() / together);
  return {range.begin * together, range.end * together};
}

}  // namespace

void fetch_share(Team& team, const PackedMatrix& matrix, Epilogue epilogue) {
  constexpr size_t line = 64, most = 64 * 1024;
  const Range range = share_blocks(team, matrix, epilogue);
  const size_t block = static_cast<size_t>(matrix.padded_k()) * kLanes * dtype_bytes(matrix.format());
  const char* weights = static_cast<const char*>(matrix.data()) + static_cast<size_t>(range.begin) * block;
  const size_t bytes = std::min(most, static_cast<size_t>(range.end - range.begin) * block);
  for (size_t i = 0; i < bytes; i += line) __builtin_prefetch(weights + i, 0, 2);
}

void linear_share(Team& team, const Kernels& kernels, const PackedMatrix& matrix, const InputRows& inputs,
                  int rows, int outputs, float* y, ptrdiff_t y_stride, Epilogue epilogue) {
  LinearCall call = linear_call(matrix, inputs, rows, outputs, y, y_stride, epilogue);
  const Range range = share_blocks(team, matrix, epilogue);
  call.block_begin = range.begin;
  call.block_end = range.end;
  call.ahead_end = call.block_end;
  run_linear(kernels, matrix, call);
}

}  // namespace specee
