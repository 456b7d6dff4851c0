// Row-linear kernels against one chain of multiply-adds per output, to the bit.
#include <cmath>
#include <vector>

#include "reference.h"
#include "specee/numerics.h"
#include "tests.h"

namespace native {
namespace {

using specee::Epilogue;
using specee::kLanes;

constexpr float kUntouched = 12345.0f;

// One product: plain matrices, and the same weights in panels.
struct Problem {
  bool bf16 = false, f16 = false;  // f32 if neither
  int rows = 0, k = 0, blocks = 0, outputs = 0;
  int block_begin = 0, block_end = 0;
  Epilogue epilogue = Epilogue::store;
  std::vector<float> x, w, bias,
      y;  // x: rows x k; w: (blocks * 16) x k; y: rows x outputs
  std::vector<float> panels32;
  std::vector<uint16_t> panels16, x16;

  specee::WeightType type() const {
    return bf16 ? specee::WeightType::bf16 : f16 ? specee::WeightType::f16 : specee::WeightType::f32;
  }
};

bool packs_inputs(const specee::Kernels& kernels, const Problem& p) {
  return kernels.input_form(p.type()) == specee::InputForm::halves;
}

void pack(Problem& p) {
  const size_t size = static_cast<size_t>(p.blocks) * kLanes * static_cast<size_t>(p.k);
  const bool halves = p.bf16 || p.f16;
  p.panels32.resize(halves ? 0 : size);
  p.panels16.resize(halves ? size : 0);
  for (int n = 0; n < p.blocks * kLanes; ++n)
    for (int i = 0; i < p.k; ++i) {
      const float value = p.w[static_cast<size_t>(n) * p.k + i];
      const size_t block = static_cast<size_t>(n / kLanes) * p.k * kLanes;
      if (p.bf16)
        p.panels16[block + (i / 2 * kLanes + n % kLanes) * 2 + i % 2] = specee::float_to_bf16(value);
      else if (p.f16)
        p.panels16[block + i * kLanes + n % kLanes] = specee::float_to_f16(value);
      else
        p.panels32[block + i * kLanes + n % kLanes] = value;
    }
}

Problem make(Random& random, bool bf16) {
  Problem p;
  p.bf16 = bf16;
  p.f16 = !p.bf16 && random.chance(50);
  p.epilogue = static_cast<Epilogue>(random.between(0, 2));
  p.rows = random.chance(30) ? random.between(1, specee::kMaxRows) : random.between(1, 9);
  p.k = random.between(1, 70);
  if (p.bf16 && p.k % 2 != 0) ++p.k;
  p.blocks = random.between(1, 9);
  const bool swiglu = p.epilogue == Epilogue::swiglu;
  if (swiglu) p.blocks *= 2;
  const int columns = p.blocks * kLanes / (swiglu ? 2 : 1);
  p.outputs = columns - random.between(0, kLanes - 1);
  const int unit = swiglu ? 2 : 1;
  p.block_begin = random.between(0, p.blocks / unit - 1) * unit;
  p.block_end = random.between(p.block_begin / unit + 1, p.blocks / unit) * unit;
  p.x = random.floats(static_cast<size_t>(p.rows) * p.k, 2.0f);
  p.w = random.floats(static_cast<size_t>(p.blocks) * kLanes * p.k, 2.0f);
  if (random.chance(50)) p.bias = random.floats(static_cast<size_t>(p.blocks) * kLanes, 1.0f);
  p.y.assign(static_cast<size_t>(p.rows) * p.outputs, kUntouched);
  if (p.bf16) {
    for (float& value : p.x) value = specee::round_to_bf16(value);
    for (float& value : p.w) value = specee::round_to_bf16(value);
    for (const float value : p.x) p.x16.push_back(specee::float_to_bf16(value));
  }
  if (p.f16)
    for (float& value : p.w) value = specee::f16_to_float(specee::float_to_f16(value));
  pack(p);
  return p;
}

// The kernel's answer for rows [row, row + rows).
std::vector<float> run(const specee::Kernels& kernels, const Problem& p, int row, int rows) {
  std::vector<float> y(p.y.begin() + static_cast<ptrdiff_t>(row) * p.outputs,
                       p.y.begin() + static_cast<ptrdiff_t>(row + rows) * p.outputs);
  specee::LinearCall call{};
  call.weights = p.panels32.empty() ? static_cast<const void*>(p.panels16.data()) : p.panels32.data();
  call.bias = p.bias.empty() ? nullptr : p.bias.data();
  call.k = p.k;
  call.x =
      packs_inputs(kernels, p) ? static_cast<const void*>(p.x16.data() + row * p.k) : p.x.data() + row * p.k;
  call.x_stride = p.k;
  call.rows = rows;
  call.block_begin = p.block_begin;
  call.block_end = p.block_end;
  call.outputs = p.outputs;
  call.y = y.data();
  call.y_stride = p.outputs;
  call.epilogue = p.epilogue;
  kernels.linear.of[static_cast<int>(p.type())](call);
  return y;
}

// A product's value before the epilogue, and how far the kernel's may be from it (0: to the bit).
struct Expected {
  double value, bound;
};

Expected product(const specee::Kernels& kernels, const Problem& p, int row, int n) {
  const float* x = p.x.data() + row * p.k;
  const float* w = p.w.data() + static_cast<size_t>(n) * p.k;
  const float bias = p.bias.empty() ? 0.0f : p.bias[static_cast<size_t>(n)];
  if (packs_inputs(kernels, p)) {
    const double exact = dot_exact(x, w, p.k) + bias;
    return {exact, dot_bound(x, w, p.k) + kUnit * std::fabs(exact)};
  }
  const float sum = dot_chain(fuses(kernels), x, w, p.k);
  return {p.bias.empty() ? sum : sum + bias, 0.0};
}

Expected expected(const specee::Kernels& kernels, const Problem& p, int row, int column) {
  if (p.epilogue != Epilogue::swiglu) {
    Expected e = product(kernels, p, row, column);
    if (p.epilogue == Epilogue::add) {
      e.value = e.bound > 0 ? e.value + kUntouched : kUntouched + static_cast<float>(e.value);
      if (e.bound > 0) e.bound += kUnit * std::fabs(e.value);
    }
    return e;
  }
  const int gate_output = column / kLanes * 2 * kLanes + column % kLanes;
  const Expected gate = product(kernels, p, row, gate_output);
  const Expected up = product(kernels, p, row, gate_output + kLanes);
  const double exact = silu_exact(gate.value) * up.value;
  // |silu'| <= 1.1
  const double carried = 1.1 * gate.bound * std::fabs(up.value) +
                         (std::fabs(silu_exact(gate.value)) + 1.1 * gate.bound) * up.bound;
  return {exact, swiglu_bound(exact) + carried};
}

bool computed(const Problem& p, int column) {
  const int unit = p.epilogue == Epilogue::swiglu ? 2 : 1;
  const int block = column / kLanes * unit;
  return block >= p.block_begin && block < p.block_end;
}

void check_linear(const specee::Kernels& kernels, const Problem& p, int row_alone) {
  const std::vector<float> y = run(kernels, p, 0, p.rows);
  for (int row = 0; row < p.rows; ++row)
    for (int column = 0; column < p.outputs; ++column) {
      const float got = y[static_cast<size_t>(row) * p.outputs + column];
      const std::string where = std::string(specee::weight_type_name(p.type())) + " row " +
                                std::to_string(row) + " of " + std::to_string(p.rows) + ", column " +
                                std::to_string(column) + ", got " + std::to_string(got);
      if (!computed(p, column)) {
        CHECK(got == kUntouched, where + " in a block that was not asked for");
        continue;
      }
      const Expected e = expected(kernels, p, row, column);
      CHECK(std::fabs(got - e.value) <= e.bound, where + ", expected " + std::to_string(e.value));
    }
  // A row alone has the bits it has in company.
  const std::vector<float> alone = run(kernels, p, row_alone, 1);
  CHECK(std::memcmp(alone.data(), y.data() + static_cast<size_t>(row_alone) * p.outputs,
                    alone.size() * sizeof(float)) == 0,
        "row " + std::to_string(row_alone) + " of " + std::to_string(p.rows) + " changes when it is alone");
}

}  // namespace

void test_linear(const specee::Kernels& kernels, Random& random) {
  const Problem p = make(random, random.chance(50));
  check_linear(kernels, p, random.between(0, p.rows - 1));
}

void test_bf16_linear(const specee::Kernels& kernels, Random& random) {
  const Problem p = make(random, true);
  check_linear(kernels, p, random.between(0, p.rows - 1));
}

void test_same_bf16(const specee::Kernels& kernels, const specee::Kernels& other, Random& random) {
  const Problem p = make(random, true);
  if (p.epilogue == Epilogue::swiglu) return;  // its exponentials are each table's own
  const std::vector<float> y = run(kernels, p, 0, p.rows), theirs = run(other, p, 0, p.rows);
  CHECK(std::memcmp(y.data(), theirs.data(), y.size() * sizeof(float)) == 0,
        std::string(kernels.name) + " and " + other.name + " differ, k " + std::to_string(p.k) + ", " +
            std::to_string(p.rows) + " rows");
}

}  // namespace native
