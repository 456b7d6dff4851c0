// Products with packed blocks against one chain over units per output, to the bit; and the quantisation of
// inputs.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/quant_blocks.h"
#include "cpu/weight_streams.h"
#include "random_blocks.h"
#include "reference.h"
#include "tests.h"

namespace native {
namespace {

using specee::Epilogue;
using specee::kLanes;
using specee::PackedMatrix;
using specee::QuantBlock;
using specee::QuantUnit;
using specee::WeightType;

constexpr int kUnitSize = specee::kUnit;
constexpr WeightType kTypes[] = {WeightType::q4_0, WeightType::q4_1, WeightType::q8_0,
                                 WeightType::q4_k, WeightType::q5_k, WeightType::q6_k};

// One row of inputs the obvious way.
struct PlainRow {
  std::vector<int> q;
  std::vector<float> scale;
};

PlainRow quantise(const float* x, int k) {
  PlainRow row;
  for (int begin = 0; begin < k; begin += kUnitSize) {
    float largest = 0.0f;
    for (int i = begin; i < std::min(k, begin + kUnitSize); ++i) largest = std::max(largest, std::fabs(x[i]));
    const float scale = largest < 1e-30f ? 0.0f : largest * (1.0f / 127.0f);
    const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
    row.scale.push_back(scale);
    for (int i = begin; i < begin + kUnitSize; ++i)
      row.q.push_back(i < k ? static_cast<int>(std::nearbyint(x[i] * inverse)) : 0);
  }
  return row;
}

// What a weight is in the integer product, and the scale and minimum that belong to it.
struct PlainWeight {
  int value;
  float scale, minimum;
};

PlainWeight plain(WeightType type, const QuantBlock& b, int j) {
  const float d = specee::f16_to_float(b.scale), m = specee::f16_to_float(b.minimum);
  const int value = b.values[j];
  switch (type) {
    case WeightType::q4_0:
      return {value - 8, d, 0.0f};
    case WeightType::q4_1:
      return {value, d, m};
    case WeightType::q8_0:
      return {static_cast<int8_t>(value), d, 0.0f};
    case WeightType::q6_k:
      return {value - 32, d * static_cast<float>(static_cast<int8_t>(b.scales[j / 16])), 0.0f};
    default:
      return {value, d * static_cast<float>(b.scales[j / 32]), m * static_cast<float>(b.minimums[j / 32])};
  }
}

bool has_minimum(WeightType type) {
  return type == WeightType::q4_1 || type == WeightType::q4_k || type == WeightType::q5_k;
}

// The promise of quant_impl.h.
float dot_units(bool fused, WeightType type, const uint8_t* blocks, const PlainRow& x) {
  const specee::QuantLayout layout = specee::quant_layout(type);
  const int group = type == WeightType::q6_k ? 16 : kUnitSize;
  float acc = 0.0f;
  for (size_t begin = 0; begin < x.q.size(); begin += static_cast<size_t>(group)) {
    const int index = static_cast<int>(begin) / layout.block, first = static_cast<int>(begin) % layout.block;
    QuantBlock b;
    specee::unpack_source(type, blocks + static_cast<ptrdiff_t>(index) * layout.source_bytes, b);
    int dot = 0, sum = 0;
    for (int i = 0; i < group; ++i) {
      dot += plain(type, b, first + i).value * x.q[begin + static_cast<size_t>(i)];
      sum += x.q[begin + static_cast<size_t>(i)];
    }
    const PlainWeight w = plain(type, b, first);
    const float scale = x.scale[begin / kUnitSize];
    acc = multiply_add(fused, w.scale * scale, static_cast<float>(dot), acc);
    if (has_minimum(type)) acc = multiply_add(fused, w.minimum, scale * static_cast<float>(sum), acc);
  }
  return acc;
}

// Weights of the largest magnitude that the format has, scales as they were: sums of products are then as
// large as they get, and one that did not fit where a kernel adds it up would show.
void make_largest(WeightType type, std::vector<uint8_t>& blocks) {
  static const struct {
    WeightType type;
    size_t begin, bytes;
  } parts[] = {{WeightType::q4_0, 2, 16},   {WeightType::q4_1, 4, 16},   {WeightType::q8_0, 2, 32},
               {WeightType::q4_k, 16, 128}, {WeightType::q5_k, 16, 160}, {WeightType::q6_k, 0, 192}};
  const size_t stride = static_cast<size_t>(specee::quant_layout(type).source_bytes);
  for (const auto& part : parts)
    if (part.type == type)
      for (size_t at = 0; at < blocks.size(); at += stride)
        std::fill_n(blocks.begin() + static_cast<ptrdiff_t>(at + part.begin), part.bytes,
                    static_cast<uint8_t>(type == WeightType::q8_0 ? 0x80 : 0xff));
}

// Rows one after another, over poison.
std::vector<QuantUnit> quantised(const specee::Kernels& kernels, const std::vector<float>& x, int rows,
                                 int k) {
  const size_t units = static_cast<size_t>(specee::quant_bytes(k)) / sizeof(QuantUnit);
  std::vector<QuantUnit> all(static_cast<size_t>(rows) * units);
  std::memset(all.data(), 0x7f, all.size() * sizeof(QuantUnit));
  for (int r = 0; r < rows; ++r)
    kernels.quantise_row(x.data() + r * k, k, all.data() + static_cast<size_t>(r) * units);
  return all;
}

}  // namespace

void test_quantise_row(const specee::Kernels& kernels, Random& random) {
  const int k = random.between(1, 200);
  std::vector<float> x = random.floats(static_cast<size_t>(k), 4.0f);
  for (float& value : x) {
    if (random.chance(10)) value = 0.0f;
    if (random.chance(5)) value *= 1e-33f;
  }
  if (random.chance(20)) std::fill(x.begin(), x.end(), random.chance(50) ? 0.0f : 1e-38f);
  const std::vector<QuantUnit> units = quantised(kernels, x, 1, k);
  const PlainRow plain_row = quantise(x.data(), k);
  CHECK(units.size() == plain_row.scale.size(), "units");
  for (size_t u = 0; u < units.size(); ++u) {
    const QuantUnit& unit = units[u];
    int expected[2] = {0, 0};
    for (size_t i = 0; i < 32; ++i) {
      CHECK(unit.q[i] == plain_row.q[32 * u + i], "input " + std::to_string(32 * u + i));
      expected[i / 16] += plain_row.q[32 * u + i];
    }
    const std::string where = "unit " + std::to_string(u);
    CHECK(unit.scale == plain_row.scale[u], where);
    CHECK(unit.sums[0] == expected[0] && unit.sums[1] == expected[1], where);
    CHECK(unit.scaled_sum == unit.scale * static_cast<float>(expected[0] + expected[1]), where);
  }
  // What is not a number must not vanish.
  x[static_cast<size_t>(random.between(0, k - 1))] =
      random.chance(50) ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
  bool seen = false;
  for (const QuantUnit& unit : quantised(kernels, x, 1, k)) seen |= !std::isfinite(unit.scale);
  CHECK(seen, "a NaN or an infinity left no trace in the scales");
}

void test_quant_linear(const specee::Kernels& kernels, Random& random) {
  const WeightType type = kTypes[random.between(0, 5)];
  const int block = specee::quant_layout(type).block;
  const int k = block == 256 ? 256 * random.between(1, 2) : random.between(1, 200);
  const int outputs = random.between(1, 70),
            rows = random.chance(30) ? random.between(1, 64) : random.between(1, 9);
  const bool fused = fuses(kernels), add = random.chance(50);
  std::vector<uint8_t> source = random_blocks(type, outputs, k, 2.0f, random);
  std::vector<float> x = random.floats(static_cast<size_t>(rows) * k, 3.0f);
  if (random.chance(15)) {
    make_largest(type, source);
    std::fill(x.begin(), x.end(), random.chance(50) ? 3.0f : -3.0f);
  }
  PackedMatrix matrix(outputs, k, type, "a test");
  matrix.set_rows({}, 0, outputs, source.data(), type);
  const ptrdiff_t row_stride = specee::quant_bytes(k);
  const std::vector<QuantUnit> inputs = quantised(kernels, x, rows, k);

  const specee::WeightRun weights = specee::weight_run(matrix, {0, matrix.blocks()});
  const specee::WeightRun runs[] = {weights, weights};  // a second product that could be fetched
  const auto run = [&](int first, int count, std::vector<float>& y) {
    specee::WeightStream stream = {runs, random.between(1, 2), 0, weights.bytes, 0, 0};
    specee::LinearCall call{};
    call.weights = matrix.data();
    call.block_bytes = matrix.block_bytes();
    call.k = matrix.padded_k();
    call.x = reinterpret_cast<const char*>(inputs.data()) + first * row_stride;
    call.x_stride = row_stride;
    call.rows = count;
    call.stream = random.chance(50) ? &stream : nullptr;
    call.outputs = outputs;
    call.y = y.data();
    call.y_stride = outputs;
    call.epilogue = add ? Epilogue::add : Epilogue::store;
    for (int begin = 0; begin < matrix.blocks(); begin = call.block_end) {  // any pieces
      call.block_begin = begin;
      call.block_end = random.chance(70) ? matrix.blocks() : random.between(begin + 1, matrix.blocks());
      kernels.linear.of[static_cast<int>(type)](call);
    }
    // All of it has been taken off, but for what does not divide among tiles of rows.
    CHECK(call.stream == nullptr || (stream.left >= 0 && stream.left < matrix.blocks() * specee::kMaxRows),
          std::to_string(stream.left) + " bytes left to fetch after " + std::to_string(count) + " rows");
    CHECK(stream.fetched_next >= 0 && stream.fetched_next <= weights.bytes + 64,
          "fetched of the next product");
  };
  const float before = 0.75f;
  std::vector<float> y(static_cast<size_t>(rows) * outputs, before);
  run(0, rows, y);
  const size_t row_bytes = source.size() / static_cast<size_t>(outputs);
  for (int r = 0; r < rows; ++r) {
    const PlainRow plain_row = quantise(x.data() + r * k, k);
    for (int n = 0; n < outputs; ++n) {
      const float dot = dot_units(fused, type, source.data() + static_cast<size_t>(n) * row_bytes, plain_row);
      const float expected = add ? before + dot : dot;
      const float got = y[static_cast<size_t>(r) * outputs + n];
      CHECK(got == expected, std::string(specee::weight_type_name(type)) + " row " + std::to_string(r) +
                                 " of " + std::to_string(rows) + ", output " + std::to_string(n) + " is " +
                                 std::to_string(got) + ", expected " + std::to_string(expected));
    }
  }
  const int row = random.between(0, rows - 1);
  std::vector<float> alone(static_cast<size_t>(outputs), before);
  run(row, 1, alone);
  CHECK(std::memcmp(alone.data(), y.data() + static_cast<size_t>(row) * outputs, alone.size() * 4) == 0,
        "row " + std::to_string(row) + " changes when it is alone");
}

}  // namespace native
