// The kernels that exist once per instruction set, behind one table of function pointers.
//
// Weight layout ("panels"): output features are grouped in blocks of 16, and a block is stored K-major, so
// that vector lanes are output features:
//   f32:   block[b][k][16]            (64 bytes per k)
//   f16:   block[b][k][16]            (32 bytes per k)
//   bf16:  block[b][k / 2][16][2]     (64 bytes per pair of k)
//   q*:    block[b][checkpoint block]: a header with the scales, [16] each (see quant_impl.h), then its units
//   of 32
//          k. A unit has vectors of 64 bytes, [16 outputs][4 k]: eight of whole bytes (q8_0), or four whose
//          low nibbles are the unit's first sixteen k and whose high nibbles its last sixteen, followed by
//          the bits above (q5_k: one vector, bit s of a byte belongs to step s; q6_k: two, bits 2i, 2i + 1 of
//          vector j belong to step 4j + i).
// A block is read from its first byte to its last, which is what hardware prefetchers follow best. Each
// output is ONE chain of fused multiply-adds over k (float formats; the bf16 instructions of avx512bf16 and
// amx take two or 32 k as a step, each in its own way) or over units (quantised formats, whose dot products
// within a unit are exact integers): tiles may be cut any way for speed, and neither the number of rows, nor
// the tile, nor the vector width, nor the thread count can change a bit of the result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "specee/formats.h"
#include "specee/numerics.h"

namespace specee {

inline constexpr int kLanes = 16;        // outputs per block, positions per key tile
inline constexpr int kMaxRows = 64;      // rows per engine pass
inline constexpr int kMaxHeadGroup = 3;  // query heads that share one pass over keys and values

static constexpr int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

enum class Epilogue {
  store,   // y[r][n]  = result + bias[n]
  add,     // y[r][n] += result + bias[n]
  swiglu,  // blocks alternate gate, up: y[r][n] = silu(gate + bias) * (up + bias)
};

// What a product wants its inputs to be.
enum class InputForm {
  floats,     // float
  rounded,    // float, rounded to bf16
  halves,     // uint16 bf16
  quantised,  // QuantUnit, one after another
};
inline constexpr int kInputForms = 4;

// 32 inputs: q = round(x / scale) with scale = largest magnitude / 127, so that x ~ scale * q. A row is
// padded with zeros to whole units. What a kernel reads of a unit lies together, for one pointer to a row to
// do.
struct QuantUnit {
  int8_t q[kUnit];
  float scale;
  float scaled_sum;  // scale * sum of q
  int32_t sums[2];   // of q, by sixteen
};
static_assert(sizeof(QuantUnit) == kUnit + 16);
static constexpr int quant_units(int k) { return round_up(k, kUnit) / kUnit; }
static constexpr ptrdiff_t quant_bytes(int k) {
  return quant_units(k) * static_cast<ptrdiff_t>(sizeof(QuantUnit));
}

// The weights that one member reads in a pass, product by product. Hardware prefetchers follow them while few
// rows are multiplied; with many, kernels fetch their own and the beginning of the next product's, and
// attention, which reads no weights, always that of the one behind it (fetch_impl.h).
struct WeightRun {
  uintptr_t begin;  // an address
  ptrdiff_t bytes;
  ptrdiff_t block_bytes;
};
struct WeightStream {
  const WeightRun* runs;
  int count;
  int current;             // run being multiplied, or the next one to be
  ptrdiff_t left;          // bytes of it not multiplied yet
  ptrdiff_t fetched;       // bytes of it fetched before its product began
  ptrdiff_t fetched_next;  // bytes of the run after it
};

struct LinearCall {
  const void* weights;    // panels of blocks [0, ...)
  ptrdiff_t block_bytes;  // of one block
  const float* bias;      // one entry per packed output (blocks * 16), or null
  int k;                  // inner size, padded as the format wants it (bf16: even; q*: whole units)
  const void* x;          // rows in the format's InputForm
  ptrdiff_t x_stride;     // in elements of x (quantised: in bytes)
  int rows;               // 1..kMaxRows
  int block_begin, block_end;
  WeightStream* stream;  // what to fetch meanwhile, or null
  int outputs;           // outputs at or past this are padding and not written
  float* y;  // y[r * y_stride + n - column_origin] is output n (swiglu: half as many outputs as weights)
  int column_origin;
  ptrdiff_t y_stride;  // in floats
  Epilogue epilogue;
};

// Attention of one row with one key/value head. Three kernels, so that keys and values can be gone through a
// few positions at a time, once for many rows: scores, weights, weighted sum. Each result is one chain over
// logical positions however they are cut. Scores and sums take several calls at once, which have the same
// keys, values and number of heads.
struct AttendCall {
  const float* q;  // heads x head_dim, rotated
  int heads;       // 1..kMaxHeadGroup query heads sharing the key/value head
  int head_dim;
  const void* keys;    // [tile][head_dim][16]: lanes are slots
  const void* values;  // [slot][value_stride]
  int value_stride;    // head_dim rounded up to 16
  Dtype dtype;
  int begin, end;       // logical positions [begin, end) attended to
  int identity;         // positions below this sit in the slot of the same number
  const int32_t* path;  // slot of position identity + i
  float scale;
  const float* scores;   // heads x score_stride, unscaled
  float* weights;        // heads x score_stride: softmax without its division; may be `scores`
  int score_stride;      // at least end rounded up to kChunk
  float* sums;           // heads: of the weights
  float* sum_so_far;     // heads x value_stride
  void* tile;            // scratch: head_dim x 16 elements, 4 bytes each
  float* out;            // heads x head_dim
  WeightStream* stream;  // weights to fetch meanwhile, or null
};

// Positions whose keys, or values, stay in the first-level cache for all rows; half as many again where they
// are small.
inline constexpr int kChunk = 128;

// Terms of the bound of a coarse logit (coarse_head.h).
inline constexpr int kBoundTerms = 7;

struct ScreenCall {
  const float* logits;  // rows x stride: coarse ones of some blocks
  ptrdiff_t stride;
  int rows, blocks;
  const uint16_t* norms;  // blocks x kBoundTerms x 16, bf16
  const float* bounds;    // rows x (kBoundTerms + 1): a factor of each norm, and what is added to them
  float* most;            // rows x out_stride: by block, the largest that a logit may be
  float* largest;         // the same of coarse logits
  ptrdiff_t out_stride;
};

using LinearKernel = void (*)(const LinearCall&);
struct LinearKernels {
  LinearKernel of[kWeightTypes];  // by WeightType
};

struct Kernels {
  const char* name;
  InputForm bf16_form;  // rounded, or halves where the instruction set multiplies bf16 pairs
  LinearKernels linear;
  // Writes the quantised form of a row of k floats: quant_bytes(k) of units.
  void (*quantise_row)(const float* x, int k, QuantUnit* units);
  // y[i] = x[i] / sqrt(mean(x^2) + eps) * w[i]   (Zhang & Sennrich 2019)
  void (*rms_norm)(const float* x, const float* w, float eps, int n, float* y);
  // x[i] *= sigmoid(x[i])
  void (*silu)(float* x, int n);
  // (a, b) -> (a cos - b sin, b cos + a sin) for a = x[i], b = x[i + half].
  void (*rotate)(float* x, const float* cosine, const float* sine, int half);
  // Positions [from, to), from a multiple of kChunk, clipped to the call's: scores into `weights`.
  void (*attend_scores)(const AttendCall*, int count, int from, int to);
  // exp(scale * (score - largest)) and its sum, for all positions.
  void (*attend_weights)(const AttendCall&);
  // Dimensions [dim_begin, dim_end), multiples of 16, of positions [from, to): adds to the sum so far, which
  // the first positions begin and the last ones turn into `out`.
  void (*attend_values)(const AttendCall*, int count, int from, int to, int dim_begin, int dim_end);
  // Rounds n floats to the dtype.
  void (*narrow)(const float* x, int n, Dtype dtype, void* out);
  // The largest of n >= 1 values, none of them NaN.
  float (*largest)(const float* values, int n);
  // The sum of exp(value - shift); values at most `shift`, exponents clamped at -87.3.
  float (*sum_exp)(const float* values, int n, float shift);
  // Bounds logits from above. False if a number is not finite: then nothing is said.
  bool (*screen)(const ScreenCall&);
  // Reads every byte once (bandwidth measurement); bytes is a multiple of 1024.
  uint64_t (*sweep)(const void* data, size_t bytes);

  InputForm input_form(WeightType type) const {
    if (type == WeightType::bf16) return bf16_form;
    return is_quantised(type) ? InputForm::quantised : InputForm::floats;
  }
};

const Kernels& kernels_portable();
#ifdef SPECEE_X86
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
// Products that AVX-512 has others of with VNNI, with bf16 instructions as well, and with AMX; null where it
// has not.
extern const LinearKernels kAvx512VnniLinear, kAvx512Bf16Linear, kAmxLinear;
#endif

}  // namespace specee
