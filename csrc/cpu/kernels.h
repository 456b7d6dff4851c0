// The kernels that exist once per instruction set, behind one table of function pointers.
//
// Weight layout ("panels"): output features are grouped in blocks of 16, and a block is stored K-major,
//   f32:   block[b][k][16]            (64 bytes per k)
//   bf16:  block[b][k / 2][16][2]     (64 bytes per pair of k)
// so that vector lanes are output features. Each output is then ONE chain of fused multiply-adds over
// k = 0, 1, 2, ...: tiles may be cut any way for speed, and neither the number of rows, nor the tile, nor the
// vector width, nor the thread count can change a bit of the result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "specee/numerics.h"

namespace specee {

inline constexpr int kLanes = 16;        // outputs per block, positions per key tile
inline constexpr int kMaxRows = 64;      // rows per engine pass
inline constexpr int kMaxHeadGroup = 3;  // query heads that share one pass over keys and values

inline constexpr int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

enum class Epilogue {
  store,   // y[r][n]  = result + bias[n]
  add,     // y[r][n] += result + bias[n]
  swiglu,  // blocks alternate gate, up: y[r][n] = silu(gate + bias) * (up + bias)
};

struct LinearCall {
  const void* weights;  // panels of blocks [0, ...)
  const float* bias;    // one entry per packed output (blocks * 16), or null
  int k;                // inner size (even for bf16, zero-padded)
  const void* x;       // rows x k: float (bf16: already rounded), or uint16 bf16 where the table packs inputs
  ptrdiff_t x_stride;  // in elements of x
  int rows;            // 1..kMaxRows
  int block_begin, block_end;
  int ahead_end;  // the caller goes on to blocks up to here: they may be fetched ahead
  int outputs;    // outputs at or past this are padding and not written
  float* y;       // y[r * y_stride + n - column_origin] is output n (swiglu: half as many outputs as weights)
  int column_origin;
  ptrdiff_t y_stride;  // in floats
  Epilogue epilogue;
};

struct AttendCall {
  const float* q;  // heads x head_dim, rotated
  int heads;       // 1..kMaxHeadGroup query heads sharing one key/value head
  int head_dim;
  const void* keys;    // [tile][head_dim][16]: lanes are slots
  const void* values;  // [slot][value_stride]
  int value_stride;    // head_dim rounded up to 16
  Dtype dtype;
  int begin, end;       // logical positions [begin, end) attended to
  int identity;         // positions below this sit in the slot of the same number
  const int32_t* path;  // slot of position identity + i
  float scale;
  float* scores;     // scratch: heads x score_stride
  int score_stride;  // at least end rounded up to 16
  void* tile;        // scratch: head_dim x 16 elements, 4 bytes each
  float* out;        // heads x head_dim
};

struct Kernels {
  const char* name;
  bool packs_bf16_inputs;  // linear_bf16 wants x as uint16 bf16 rows rather than rounded floats
  void (*linear_f32)(const LinearCall&);
  void (*linear_bf16)(const LinearCall&);
  // y[i] = x[i] / sqrt(mean(x^2) + eps) * w[i]   (Zhang & Sennrich 2019)
  void (*rms_norm)(const float* x, const float* w, float eps, int n, float* y);
  void (*attend)(const AttendCall&);
  // Reads every byte once (bandwidth measurement); bytes is a multiple of 1024.
  uint64_t (*sweep)(const void* data, size_t bytes);
};

const Kernels& kernels_portable();
#ifdef SPECEE_X86
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
const Kernels& kernels_avx512bf16();
#endif

}  // namespace specee
