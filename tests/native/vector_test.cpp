// RMSNorm, attention and the memory sweep against double precision.
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "reference.h"
#include "specee/numerics.h"
#include "tests.h"

namespace native {
namespace {

using specee::Dtype;
using specee::kLanes;

// One head's cache as the kernels read it; slots that hold no row are NaN.
class Cache {
 public:
  Cache(Dtype dtype, int slots, int head_dim)
      : dtype_(dtype), head_dim_(head_dim), stride_(specee::round_up(head_dim, kLanes)) {
    const size_t padded = static_cast<size_t>(specee::round_up(slots, kLanes));
    keys_.resize(padded * static_cast<size_t>(head_dim) * element());
    values_.resize(padded * static_cast<size_t>(stride_) * element());
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (size_t i = 0; i < keys_.size() / element(); ++i) put(keys_, i, nan);
    for (size_t i = 0; i < values_.size() / element(); ++i) put(values_, i, nan);
  }

  void store(int slot, const std::vector<float>& key, const std::vector<float>& value) {
    for (int d = 0; d < head_dim_; ++d)
      put(keys_, (static_cast<size_t>(slot / kLanes) * head_dim_ + d) * kLanes + slot % kLanes, key[d]);
    for (int d = 0; d < stride_; ++d)
      put(values_, static_cast<size_t>(slot) * stride_ + d,
          d < head_dim_ ? value[static_cast<size_t>(d)] : 0.0f);
  }

  const void* keys() const { return keys_.data(); }
  const void* values() const { return values_.data(); }
  int stride() const { return stride_; }

 private:
  size_t element() const { return static_cast<size_t>(specee::dtype_bytes(dtype_)); }
  void put(std::vector<char>& bytes, size_t index, float value) {
    const uint16_t half = dtype_ == Dtype::bf16 ? specee::float_to_bf16(value) : specee::float_to_f16(value);
    if (dtype_ == Dtype::f32)
      std::memcpy(bytes.data() + index * 4, &value, 4);
    else
      std::memcpy(bytes.data() + index * 2, &half, 2);
  }

  Dtype dtype_;
  int head_dim_, stride_;
  std::vector<char> keys_, values_;
};

float rounded(Dtype dtype, float value) {
  if (dtype == Dtype::bf16) return specee::round_to_bf16(value);
  return dtype == Dtype::f16 ? specee::f16_to_float(specee::float_to_f16(value)) : value;
}

// Attention of a group of heads over logical positions, of which those from `identity` on are found through a
// path.
struct Setting {
  Dtype dtype;
  int heads, head_dim, begin, end, identity;
  int chunk;  // positions at a time
  float scale;
  std::vector<float> q;  // heads x head_dim
  std::vector<std::vector<float>> keys,
      values;  // [position][head_dim], as rounded by the cache
};

Setting make(Random& random) {
  Setting s;
  s.dtype = static_cast<Dtype>(random.between(0, 2));
  s.heads = random.between(1, specee::kMaxHeadGroup);
  s.head_dim = 2 * random.between(1, 40);
  s.end = random.chance(20) ? random.between(1, 300) : random.between(1, 70);
  s.begin = random.chance(50) ? 0 : random.between(0, s.end - 1);
  s.identity = random.between(0, s.end);
  s.chunk = specee::kChunk * random.between(1, 3);
  s.scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
  s.q = random.floats(static_cast<size_t>(s.heads) * s.head_dim, 3.0f);
  for (int p = 0; p < s.end; ++p) {
    s.keys.push_back(random.floats(static_cast<size_t>(s.head_dim), 3.0f));
    s.values.push_back(random.floats(static_cast<size_t>(s.head_dim), 3.0f));
    for (float& value : s.keys.back()) value = rounded(s.dtype, value);
    for (float& value : s.values.back()) value = rounded(s.dtype, value);
  }
  return s;
}

// Runs the kernel with positions identity .. end in the slots that `path` names.
std::vector<float> run(const specee::Kernels& kernels, const Setting& s, int identity,
                       const std::vector<int32_t>& path) {
  const int chunk = s.chunk;
  int slots = identity;
  for (const int32_t slot : path) slots = std::max(slots, slot + 1);
  Cache cache(s.dtype, slots, s.head_dim);
  for (int p = 0; p < s.end; ++p)
    cache.store(p < identity ? p : path[static_cast<size_t>(p - identity)], s.keys[static_cast<size_t>(p)],
                s.values[static_cast<size_t>(p)]);
  const int score_stride = specee::round_up(s.end, chunk);
  std::vector<float> scores(static_cast<size_t>(s.heads) * score_stride), out(s.q.size()), sums(s.q.size());
  std::vector<float> so_far(static_cast<size_t>(s.heads) * cache.stride());
  std::vector<float> tile(static_cast<size_t>(s.head_dim) * kLanes);
  specee::AttendCall call{};
  call.q = s.q.data();
  call.heads = s.heads;
  call.head_dim = s.head_dim;
  call.keys = cache.keys();
  call.values = cache.values();
  call.value_stride = cache.stride();
  call.dtype = s.dtype;
  call.begin = s.begin;
  call.end = s.end;
  call.identity = identity;
  call.path = path.data();
  call.scale = s.scale;
  call.scores = call.weights = scores.data();
  call.sums = sums.data();
  call.sum_so_far = so_far.data();
  call.score_stride = score_stride;
  call.tile = tile.data();
  call.out = out.data();
  for (int from = s.begin / chunk * chunk; from < s.end; from += chunk)
    kernels.attend_scores(&call, 1, from, from + chunk);
  kernels.attend_weights(call);
  for (int from = s.begin / chunk * chunk; from < s.end; from += chunk) {
    const int width = cache.stride(), middle = width / 2 / kLanes * kLanes;
    if (middle > 0) kernels.attend_values(&call, 1, from, from + chunk, 0, middle);
    kernels.attend_values(&call, 1, from, from + chunk, middle, width);
  }
  return out;
}

// Distinct slots from `identity` on, in no order, with holes between them.
std::vector<int32_t> scattered(const Setting& s, Random& random) {
  std::vector<int32_t> slots(static_cast<size_t>(2 * (s.end - s.identity)));
  std::iota(slots.begin(), slots.end(), s.identity);
  for (size_t i = slots.size(); i > 1; --i)
    std::swap(slots[i - 1], slots[static_cast<size_t>(random.between(0, static_cast<int>(i) - 1))]);
  slots.resize(slots.size() / 2);
  return slots;
}

}  // namespace

void test_rms_norm(const specee::Kernels& kernels, Random& random) {
  const size_t n = static_cast<size_t>(random.between(1, 200));
  const float eps = random.chance(50) ? 1e-5f : 1e-6f;
  const std::vector<float> x = random.floats(n, 4.0f), w = random.floats(n, 2.0f);
  std::vector<float> y(n);
  kernels.rms_norm(x.data(), w.data(), eps, static_cast<int>(n), y.data());
  const std::vector<double> exact = rms_norm_exact(x, w, eps);
  for (size_t i = 0; i < n; ++i)
    CHECK(std::fabs(y[i] - exact[i]) <= rms_norm_bound(exact[i], n),
          "element " + std::to_string(i) + " of " + std::to_string(n) + " is " + std::to_string(y[i]));
}

void test_attention(const specee::Kernels& kernels, Random& random) {
  const Setting s = make(random);
  const std::vector<float> out = run(kernels, s, s.end, {});
  for (int head = 0; head < s.heads; ++head) {
    const AttentionAnswer answer = attention_exact(
        {s.q.data() + head * s.head_dim, s.keys, s.values, s.begin, s.end, s.head_dim, s.scale});
    for (size_t d = 0; d < answer.out.size(); ++d) {
      const float got = out[static_cast<size_t>(head * s.head_dim) + d];
      CHECK(std::fabs(got - answer.out[d]) <= answer.bound[d],
            "head " + std::to_string(head) + ", dimension " + std::to_string(d) + " is " +
                std::to_string(got) + ", expected " + std::to_string(answer.out[d]));
    }
  }
  // A tree row has the bits of the chain with the same text.
  const std::vector<float> gathered = run(kernels, s, s.identity, scattered(s, random));
  CHECK(std::memcmp(gathered.data(), out.data(), out.size() * sizeof(float)) == 0,
        "positions " + std::to_string(s.identity) + " to " + std::to_string(s.end) +
            " gathered give other bits");
  // And a group of heads the bits of each head alone.
  Setting alone = s;
  alone.heads = 1;
  alone.q.assign(s.q.end() - s.head_dim, s.q.end());
  const std::vector<float> last = run(kernels, alone, s.end, {});
  CHECK(std::memcmp(last.data(), out.data() + (s.heads - 1) * s.head_dim, last.size() * sizeof(float)) == 0,
        "the last of " + std::to_string(s.heads) + " heads changes when it is alone");
}

void test_sweep(const specee::Kernels& kernels, Random& random) {
  std::vector<uint64_t> data(static_cast<size_t>(random.between(1, 200)) * 64);
  uint64_t sum = 0;
  for (uint64_t& word : data) sum += word = random.bits();
  CHECK(kernels.sweep(data.data(), data.size() * 8) == sum, "the sweep did not read every byte once");
}

}  // namespace native
