#include "cpu/inputs.h"

namespace specee {

Forms forms_of(const Kernels& kernels, const std::vector<const PackedMatrix*>& matrices) {
  Forms forms;
  for (const PackedMatrix* matrix : matrices) forms.add(kernels.input_form(matrix->type()));
  return forms;
}

Inputs::Inputs(const Kernels& kernels, const Forms& forms, int width, int threads)
    : kernels_(kernels),
      stride_(round_up(width, kLanes)),
      unit_stride_(round_up(quant_units(width), 4)),  // whole cache lines
      buffers_(static_cast<size_t>(threads) + 1) {
  for (size_t i = 0; i < buffers_.size(); ++i) {
    const size_t rows = static_cast<size_t>(i == 0 ? kMaxRows : kRowsAlone);
    const size_t size = rows * static_cast<size_t>(stride_);
    buffers_[i].floats.resize(size);
    if (forms.has(InputForm::rounded)) buffers_[i].rounded.resize(size);
    if (forms.has(InputForm::halves)) buffers_[i].halves.resize(size);
    if (forms.has(InputForm::quantised)) buffers_[i].units.resize(rows * static_cast<size_t>(unit_stride_));
  }
}

void Inputs::convert(Buffer& buffer, int r, int k, const Forms& forms) const {
  float* row = buffer.floats.data() + r * stride_;
  if (k % 2 != 0)
    row[k] = 0.0f;  // meets a zero weight of an even format; must not be a leftover NaN or infinity
  const int even = round_up(k, 2);
  if (forms.has(InputForm::rounded)) {
    float* rounded = buffer.rounded.data() + r * stride_;
    for (int i = 0; i < even; ++i) rounded[i] = round_to_bf16(row[i]);
  }
  if (forms.has(InputForm::halves))
    kernels_.narrow(row, even, Dtype::bf16, buffer.halves.data() + r * stride_);
  if (forms.has(InputForm::quantised)) kernels_.quantise_row(row, k, buffer.units.data() + r * unit_stride_);
}

InputRows Inputs::view(const Buffer& buffer) const {
  return {{buffer.floats.data(), buffer.rounded.data(), buffer.halves.data(), buffer.units.data()},
          {stride_, stride_, stride_, unit_stride_ * static_cast<ptrdiff_t>(sizeof(QuantUnit))}};
}

LinearCall linear_call(const Kernels& kernels, const PackedMatrix& matrix, const InputRows& inputs, int rows,
                       int outputs, float* y, ptrdiff_t y_stride, Epilogue epilogue) {
  const size_t form = static_cast<size_t>(kernels.input_form(matrix.type()));
  LinearCall call;
  call.weights = matrix.data();
  call.block_bytes = matrix.block_bytes();
  call.bias = matrix.bias();
  call.k = matrix.padded_k();
  call.x = inputs.data[form];
  call.x_stride = inputs.stride[form];
  call.rows = rows;
  call.block_begin = 0;
  call.block_end = matrix.blocks();
  call.stream = nullptr;
  call.outputs = outputs;
  call.y = y;
  call.column_origin = 0;
  call.y_stride = y_stride;
  call.epilogue = epilogue;
  return call;
}

void run_linear(const Kernels& kernels, const PackedMatrix& matrix, const LinearCall& call) {
  if (call.block_begin < call.block_end) kernels.linear.of[static_cast<int>(matrix.type())](call);
}

void run_share(const Kernels& kernels, const PackedMatrix& matrix, LinearCall call, Range blocks,
               WeightStream* stream) {
  call.block_begin = blocks.begin;
  call.block_end = blocks.end;
  call.stream = stream;
  run_linear(kernels, matrix, call);
}

}  // namespace specee
