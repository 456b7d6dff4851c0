// What is done with a product's results, whatever kernel made them.
#pragma once

#include "cpu/kernels.h"

namespace {

using specee::Epilogue;
using specee::kLanes;
using specee::LinearCall;

// Gate and up blocks go together: so many blocks, or twice as many.
inline int whole_pairs(int blocks, Epilogue epilogue) {
  return epilogue == Epilogue::swiglu && blocks % 2 != 0 ? 2 * blocks : blocks;
}

inline void write_columns(float* y, const Vec& value, int column, int outputs, bool add) {
  if (column + kLanes <= outputs) {
    vstore(y + column, add ? vadd(vload(y + column), value) : value);
    return;
  }
  float lane[kLanes];
  vstore(lane, value);
  for (int i = 0; column + i < outputs; ++i) y[column + i] = add ? y[column + i] + lane[i] : lane[i];
}

inline Vec with_bias(const float* result, const float* bias, int block) {
  const Vec value = vload(result);
  return bias ? vadd(value, vload(bias + block * kLanes)) : value;
}

// out[block][row][16]
template <int Rows>
inline void finish(const LinearCall& call, const float (*out)[Rows][kLanes], int block, int blocks, int row,
                   int rows) {
  const int outputs = call.outputs - call.column_origin;
  for (int r = 0; r < rows; ++r) {
    float* y = call.y + (row + r) * call.y_stride;
    if (call.epilogue == Epilogue::swiglu) {
      for (int b = 0; b < blocks; b += 2) {
        const Vec gate = with_bias(out[b][r], call.bias, block + b);
        const Vec up = with_bias(out[b + 1][r], call.bias, block + b + 1);
        write_columns(y, vmul(vsilu(gate), up), (block + b) / 2 * kLanes - call.column_origin, outputs,
                      false);
      }
    } else {
      for (int b = 0; b < blocks; ++b)
        write_columns(y, with_bias(out[b][r], call.bias, block + b),
                      (block + b) * kLanes - call.column_origin, outputs, call.epilogue == Epilogue::add);
    }
  }
}

}  // namespace
