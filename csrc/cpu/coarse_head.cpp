#include "cpu/coarse_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "specee/numerics.h"

namespace specee {
namespace {

constexpr int kSourceBytes = 20;   // of 32 weights in Q4_1: scale and minimum in fp16, two weights a byte
constexpr int kOutlierShare = 6;   // one in so many inputs
constexpr int kSampledBlocks = 8;  // one in so many says how large the weights of an input are
constexpr double kLess = 0.75;     // of the head's bytes, for a second pass over some of it to pay

int outliers_of(int k) { return std::min(k, round_up(k / kOutlierShare, kUnit)); }

size_t packed_bytes(int outputs, int k) {
  const int blocks = round_up(outputs, kLanes) / kLanes;
  return static_cast<size_t>(blocks) * kLanes * static_cast<size_t>(round_up(k, kUnit) / kUnit) *
         kSourceBytes;
}

// 32 weights as a Q4_1 block; what they are rounded to replaces them. Loops that compilers turn into vectors.
void round_to_q4_1(float* weights, uint8_t* source) {
  float least = weights[0], most = weights[0];
  for (int i = 1; i < kUnit; ++i) {
    least = weights[i] < least ? weights[i] : least;
    most = weights[i] > most ? weights[i] : most;
  }
  const uint16_t halves[2] = {float_to_f16((most - least) / 15), float_to_f16(least)};
  const float scale = f16_to_float(halves[0]), minimum = f16_to_float(halves[1]);
  const bool fits = scale > 0 && std::isfinite(scale) && std::isfinite(minimum);
  const float steps = fits ? 1 / scale : 0.0f;  // what does not fit shows in the norms
  int q[kUnit];
  for (int i = 0; i < kUnit; ++i) {
    float step = fits ? (weights[i] - minimum) * steps + 0.5f : 0.0f;
    step = step > 0.0f ? step : 0.0f;
    q[i] = static_cast<int>(step < 15.5f ? step : 15.5f);
    weights[i] = static_cast<float>(q[i]) * scale + minimum;
  }
  std::memcpy(source, halves, sizeof halves);
  for (int i = 0; i < kUnit / 2; ++i) source[4 + i] = static_cast<uint8_t>(q[i] | q[i + kUnit / 2] << 4);
}

// At least that much, in bf16.
uint16_t rounded_up(double norm) {
  const float value = static_cast<float>(norm);
  uint16_t half = float_to_bf16(value);
  if (bf16_to_float(half) < norm) ++half;  // the next one, as these are positive
  return half;
}

}  // namespace

// What one member works with while it makes its share of the rows.
class CoarseHead::Rows {
 public:
  Rows(CoarseHead& head, int k)
      : to_(head),
        k_(k),
        weights_(padded(k)),
        coarse_(weights_),
        error_(padded(k)),
        kept_(padded(head.part(0).end)),
        source_(padded(k) / kUnit * kSourceBytes) {}

  void make(const PackedMatrix& head, int block) {
    uint16_t* norms = to_.norms_.data() + block * kTerms * kLanes;
    const int begin = block * kLanes, end = std::min(begin + kLanes, head.outputs());
    for (int row = begin; row < end; ++row) {
      head.read_row(row, weights_.data());
      make_row(row);
      for (int t = 0; t < kTerms; ++t) {
        norms[t * kLanes + row - begin] = rounded_up(norm_[t]);
        finite_ = finite_ && std::isfinite(norm_[t]);
      }
      largest_ = std::max(largest_, norm_[0]);
    }
  }
  bool finite() const { return finite_; }
  double largest() const { return largest_; }

 private:
  void make_row(int row) {
    coarse_ = weights_;
    round(coarse_, to_.coarse_, row);
    for (int i = 0; i < k_; ++i) {
      const size_t at = static_cast<size_t>(to_.order_[static_cast<size_t>(i)]);
      error_[static_cast<size_t>(i)] = weights_[at] - coarse_[at];
    }
    norm_[0] = norm_of(weights_.data(), k_);
    for (int g = 1; g <= kGroups; ++g) {
      const Range part = to_.part(g);
      norm_[g] = norm_of(error_.data() + part.begin, part.end - part.begin);
    }
    const int outliers = to_.part(0).end;
    std::copy_n(error_.begin(), outliers, kept_.begin());
    round(kept_, to_.errors_, row);
    for (size_t i = 0; i < static_cast<size_t>(outliers); ++i) error_[i] -= kept_[i];
    norm_[kGroups + 1] = norm_of(error_.data(), outliers);
    norm_[kGroups + 2] = norm_of(kept_.data(), outliers);
  }
  void round(std::vector<float>& values, PackedMatrix& to, int row) {
    for (size_t unit = 0; unit < values.size() / kUnit; ++unit)
      round_to_q4_1(values.data() + unit * kUnit, source_.data() + unit * kSourceBytes);
    to.set_rows({}, row, 1, source_.data(), WeightType::q4_1);
  }
  static size_t padded(int k) { return static_cast<size_t>(round_up(k, kUnit)); }

  CoarseHead& to_;
  int k_;
  std::vector<float> weights_, coarse_, error_, kept_;  // padded with zeros; the last two in order()
  std::vector<uint8_t> source_;
  double norm_[kTerms] = {};
  bool finite_ = true;
  double largest_ = 0;  // norm of a row
};

double norm_of(const float* values, int count) {
  double sums[8] = {};  // in double, where no square of a float is too small or too large
  int i = 0;
  for (; i + 8 <= count; i += 8)
    for (int j = 0; j < 8; ++j) sums[j] += double{values[i + j]} * values[i + j];
  for (; i < count; ++i) sums[i % 8] += double{values[i]} * values[i];
  return std::sqrt(std::accumulate(sums, sums + 8, 0.0)) * (1 + (count + 8) * 0x1p-52);
}

Range CoarseHead::part(int index) const {
  const int k = static_cast<int>(order_.size()), outliers = outliers_of(k);
  if (index == 0) return {0, outliers};
  const Range group = share(index - 1, kGroups, k - outliers);
  return {outliers + group.begin, outliers + group.end};
}

size_t CoarseHead::bytes_for(const PackedMatrix& head) {
  return packed_bytes(head.outputs(), head.k()) + packed_bytes(head.outputs(), outliers_of(head.k())) +
         static_cast<size_t>(head.blocks()) * kTerms * kLanes * sizeof(uint16_t);
}

bool CoarseHead::pays(const PackedMatrix& head) {
  return head.bias() == nullptr &&
         static_cast<double>(bytes_for(head)) < kLess * static_cast<double>(head.bytes());
}

CoarseHead::CoarseHead(const PackedMatrix& head, const std::vector<float>& final_norm, ThreadPool& pool)
    : coarse_(head.outputs(), head.k(), WeightType::q4_1, "the coarse head"),
      errors_(head.outputs(), outliers_of(head.k()), WeightType::q4_1, "the coarse head's errors"),
      order_(by_weight(head, final_norm)),
      norms_(static_cast<size_t>(head.blocks()) * kTerms * kLanes) {
  std::vector<Rows> members(static_cast<size_t>(pool.size()),
                            Rows(*this, head.k()));  // a team must not throw
  pool.run([&](Team& team) {
    const Range range = team.share(head.blocks());
    for (int block = range.begin; block < range.end; ++block)
      members[static_cast<size_t>(team.index())].make(head, block);
  });
  for (const Rows& member : members) {
    finite_ = finite_ && member.finite();
    largest_norm_ = std::max(largest_norm_, member.largest());
  }
}

// Outliers are the inputs whose scale and weights are largest: it takes no text to tell. The others are in
// groups of such as are alike, since a product of norms is close where what is large meets what is large.
std::vector<int> CoarseHead::by_weight(const PackedMatrix& head, const std::vector<float>& final_norm) {
  const size_t k = static_cast<size_t>(head.k());
  std::vector<double> squares(k, 0.0);
  std::vector<float> row(k);
  for (int block = 0; block < head.blocks(); block += kSampledBlocks)
    for (int n = block * kLanes; n < std::min((block + 1) * kLanes, head.outputs()); ++n) {
      head.read_row(n, row.data());
      for (size_t i = 0; i < k; ++i) squares[i] += double{row[i]} * row[i];
    }
  std::vector<double> matters(k);
  for (size_t i = 0; i < k; ++i) matters[i] = std::sqrt(squares[i]) * std::fabs(double{final_norm[i]});
  std::vector<int> order(k);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return matters[static_cast<size_t>(a)] > matters[static_cast<size_t>(b)];
  });
  return order;
}

}  // namespace specee
