#include "cpu/two_stage_head.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "specee/errors.h"

namespace specee {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kNone = std::numeric_limits<float>::lowest() / 2;  // finite, whatever is added
constexpr Scored kNothing{kNever, std::numeric_limits<int>::max()};
constexpr int kPieceValues = 4096, kPieceColumns = 256;
static_assert(TwoStageHead::kMostRows * kPieceColumns <= kPieceValues);
// Second stages that read more of the head than that save nothing; the next calls go without, as text changes
// slowly.
constexpr double kMostWork = 0.25, kLatest = 1.0 / 16;
constexpr int kRest = 256;
// Bytes that memory gives in the time that a weight of a coarse copy takes to be made.
constexpr int kBytesPerWeight = 128;

size_t at(int i) { return static_cast<size_t>(i); }

// The numbers that a quantised row stands for.
void read_units(const QuantUnit* units, int k, float* out) {
  for (int i = 0; i < k; ++i)
    out[i] = static_cast<float>(units[i / kUnit].q[i % kUnit]) * units[i / kUnit].scale;
}

}  // namespace

TwoStageHead::TwoStageHead(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels,
                           ThreadPool& pool, Costs& costs, HeadStream& stream)
    : config_(config), weights_(weights), kernels_(kernels), pool_(pool), costs_(costs), stream_(stream) {}

// When as much could have been saved as the copy costs: at worst a text takes twice that longer than it had
// to.
void TwoStageHead::complete() {
  const PackedMatrix& head = weights_.head();
  pays_ = CoarseHead::pays(head);
  if (pays_)
    calls_until_made_ = kBytesPerWeight * int64_t{head.outputs()} * head.k() /
                        static_cast<int64_t>(head.bytes() - CoarseHead::bytes_for(head));
}

void TwoStageHead::make() {
  if (coarse_ != nullptr || !pays_) return;
  pays_ = false;  // unless all goes well
  auto made = std::make_unique<const CoarseHead>(weights_.head(), weights_.final_norm(), pool_);
  if (!made->finite()) return;
  const size_t k = at(config_.hidden_size);
  const int outliers = made->part(0).end;
  members_.resize(at(pool_.size()));
  for (size_t i = 0; i < members_.size(); ++i) {
    Member& member = members_[i];
    member.blocks = share(static_cast<int>(i), pool_.size(), made->coarse().blocks());
    member.piece.resize(at(kPieceValues));
    member.units.resize(at(kMostRows * quant_units(outliers)));
    for (std::vector<float>* row : {&member.exact, &member.rounded, &member.ordered}) row->resize(k);
    member.outliers.resize(at(outliers));
    member.rows.resize(at(kMostRows));
    for (Row& row : member.rows) row.most.resize(at(member.blocks.end - member.blocks.begin));
  }
  stream_.reserve_type(WeightType::q4_1);
  coarse_ = std::move(made);
  pays_ = true;
}

bool TwoStageHead::ready() {
  if (!on_ || !pays_) return false;
  if (coarse_ == nullptr && --calls_until_made_ > 0) return false;
  try {
    make();
  } catch (const std::bad_alloc&) {  // there is the whole head
  } catch (const OutOfMemoryError&) {
  }
  return coarse_ != nullptr;
}

bool TwoStageHead::argmax(const std::vector<const float*>& hidden, int64_t* tokens) {
  const int rows = static_cast<int>(hidden.size());
  if (rows > kMostRows || rows == 0 || !ready()) return false;
  if (resting_ > 0) {
    --resting_;
    return false;
  }
  std::vector<char> finite(at(pool_.size()), 1);
  pool_.run([&](Team& team) {
    Lap lap(costs_, team.index());
    Member& own = members_[at(team.index())];
    const InputRows inputs = stream_.normed(team, hidden.data(), rows, nullptr, finite);
    own.lost = finite[at(team.index())] == 0;
    own.exact_blocks = 0;
    if (!own.lost) {
      bound_rows(inputs, rows, own);
      screen(inputs, rows, own);
    }
    lap.mark(Step::head);
    team.barrier();
    lap.waited();
    bool lost = false;
    for (const Member& member : members_) lost |= member.lost;
    // A row's likeliest token bounds the others from below: each member asks for some of the rows.
    for (int r = team.index(); r < rows && !lost; r += team.size()) {
      const Row* likely = &own.rows[at(r)];
      for (const Member& member : members_)
        if (member.rows[at(r)].largest > likely->largest) likely = &member.rows[at(r)];
      settle_block(inputs, r, likely->likely, own.rows[at(r)]);
      ++own.exact_blocks;
    }
    lap.mark(Step::head);
    team.barrier();
    lap.waited();
    float floor[kMostRows];
    for (int r = 0; r < rows; ++r) floor[r] = members_[at(r % team.size())].rows[at(r)].best.value;
    lap.passed();
    team.barrier();  // best is about to be written
    if (!lost) settle(inputs, rows, floor, own);
    lap.mark(Step::head);
  });
  HeadStream::check(finite, nullptr);
  for (const Member& member : members_)
    if (member.lost) {
      resting_ = kRest;
      return false;
    }
  for (int r = 0; r < rows; ++r) {
    Scored best = kNothing;
    for (const Member& member : members_)
      if (better(member.rows[at(r)].best, best)) best = member.rows[at(r)].best;
    tokens[r] = best.token;
  }
  note_work();
  ++answered_;
  return true;
}

void TwoStageHead::note_work() {
  int blocks = 0;
  for (const Member& member : members_) blocks += member.exact_blocks;
  const double share = static_cast<double>(blocks) / coarse_->coarse().blocks();
  reread_ += share;
  work_ += (share - work_) * kLatest;
  if (work_ > kMostWork) work_ = 0, resting_ = kRest;
}

void TwoStageHead::bound_rows(const InputRows& inputs, int rows, Member& own) {
  const std::vector<int>& order = coarse_->order();
  const int count = coarse_->part(0).end;
  const size_t form = static_cast<size_t>(InputForm::quantised);
  const int units = quant_units(count);
  for (int r = 0; r < rows; ++r) {
    const char* row = static_cast<const char*>(inputs.data[form]) + r * inputs.stride[form];
    read_units(reinterpret_cast<const QuantUnit*>(row), config_.hidden_size, own.rounded.data());
    exact_inputs(inputs, r, own);
    for (size_t i = 0; i < order.size(); ++i) own.ordered[i] = own.rounded[at(order[i])];
    QuantUnit* outliers = own.units.data() + r * units;
    kernels_.quantise_row(own.ordered.data(), count, outliers);
    read_units(outliers, count, own.outliers.data());
    bound_row(own, own.bounds[r]);
    own.rows[at(r)].largest = kNever;
    own.rows[at(r)].best = kNothing;
  }
}

// What the head's own products take: see InputForm.
void TwoStageHead::exact_inputs(const InputRows& inputs, int r, Member& own) const {
  const InputForm form = kernels_.input_form(weights_.head().type());
  const ptrdiff_t stride = inputs.stride[static_cast<size_t>(form)];
  const void* data = inputs.data[static_cast<size_t>(form)];
  if (form == InputForm::quantised) {
    own.exact = own.rounded;
  } else if (form == InputForm::halves) {
    const uint16_t* row = static_cast<const uint16_t*>(data) + r * stride;
    for (size_t i = 0; i < own.exact.size(); ++i) own.exact[i] = bf16_to_float(row[i]);
  } else {
    const float* row = static_cast<const float*>(data) + r * stride;
    std::copy(row, row + own.exact.size(), own.exact.begin());
  }
}

// coarse_head.h has the terms. Rounding: a logit is a chain of k products at most, two roundings each, that
// add up to at most the product of the norms in magnitude. Coarse logits are chains of 2 k / 32 links, each
// up to 17 times as large as what a unit adds up to, since scale and minimum of Q4_1 cancel. With the
// roundings of bounds that is less than (8 k + 512) 2^-24 of that product; and what is too small for that to
// count, or flushed to zero, less than the rest.
void TwoStageHead::bound_row(Member& own, float* bound) const {
  const int k = static_cast<int>(own.exact.size()), outliers = coarse_->part(0).end;
  const double longest = std::max(norm_of(own.exact.data(), k), norm_of(own.rounded.data(), k));
  double terms[CoarseHead::kTerms];
  for (int g = 0; g < CoarseHead::kGroups; ++g) {
    const Range part = coarse_->part(1 + g);
    terms[1 + g] = norm_of(own.ordered.data() + part.begin, part.end - part.begin);
  }
  terms[CoarseHead::kGroups + 1] = norm_of(own.ordered.data(), outliers);
  for (size_t i = 0; i < own.outliers.size(); ++i) own.outliers[i] -= own.ordered[i];
  terms[CoarseHead::kGroups + 2] = norm_of(own.outliers.data(), outliers);
  for (size_t i = 0; i < own.exact.size(); ++i) own.exact[i] -= own.rounded[i];
  terms[0] = norm_of(own.exact.data(), k);
  for (int t = 0; t < CoarseHead::kTerms; ++t) bound[t] = static_cast<float>(terms[t] * 1.00001);
  const double largest = coarse_->largest_norm(), product = largest * longest, links = k + 64;
  const double slack = 8 * links * 0x1p-24 * product + links * 0x1p-120 * (1 + largest + longest);
  // Near the end of their range exact logits might overflow on the way and coarse ones not.
  bound[CoarseHead::kTerms] = product < 1e30 ? static_cast<float>(slack) : -kNever;
}

void TwoStageHead::screen(const InputRows& inputs, int rows, Member& own) {
  const PackedMatrix &coarse = coarse_->coarse(), &errors = coarse_->errors();
  InputRows outliers;
  const size_t form = static_cast<size_t>(InputForm::quantised);
  outliers.data[form] = own.units.data();
  outliers.stride[form] = quant_bytes(errors.k());
  const int width = kPieceValues / rows / kPieceColumns * kPieceColumns;
  const Range range = own.blocks;
  const WeightRun run = weight_run(coarse, range);
  WeightStream stream = {&run, 1, 0, run.bytes, 0, 0};
  for (int block = range.begin; block < range.end; block += width / kLanes) {
    const auto multiply = [&](const PackedMatrix& matrix, const InputRows& x, Epilogue epilogue,
                              WeightStream* from) {
      LinearCall call =
          linear_call(kernels_, matrix, x, rows, matrix.outputs(), own.piece.data(), width, epilogue);
      call.block_begin = block;
      call.block_end = std::min(range.end, block + width / kLanes);
      call.column_origin = block * kLanes;
      call.stream = from;
      run_linear(kernels_, matrix, call);
    };
    multiply(coarse, inputs, Epilogue::store, &stream);
    multiply(errors, outliers, Epilogue::add, nullptr);
    // Padding is no token, and not written: what is left there must not be the likeliest.
    const int columns = std::clamp(config_.vocab_size - block * kLanes, 0, width);
    for (int r = 0; r < rows; ++r)
      std::fill(own.piece.data() + r * width + columns, own.piece.data() + (r + 1) * width, kNone);
    screen_piece(block, std::min(range.end, block + width / kLanes), rows, width, own);
  }
}

void TwoStageHead::screen_piece(int begin, int end, int rows, int width, Member& own) const {
  float most[kPieceValues / kLanes], largest[kPieceValues / kLanes];
  ScreenCall call;
  call.logits = own.piece.data();
  call.stride = width;
  call.rows = rows;
  call.blocks = end - begin;
  call.norms = coarse_->norms(begin);
  call.bounds = own.bounds[0];
  call.most = most;
  call.largest = largest;
  call.out_stride = call.blocks;
  if (!kernels_.screen(call)) own.lost = true;
  for (int r = 0; r < rows; ++r) {
    Row& row = own.rows[at(r)];
    for (int b = 0; b < call.blocks; ++b) {
      row.most[at(begin - own.blocks.begin + b)] = most[r * call.blocks + b];
      if (largest[r * call.blocks + b] > row.largest) {
        row.largest = largest[r * call.blocks + b];
        row.likely = begin + b;
      }
    }
  }
}

void TwoStageHead::settle_block(const InputRows& inputs, int r, int block, Row& row) {
  const PackedMatrix& head = weights_.head();
  float logits[kLanes];
  LinearCall call = linear_call(kernels_, head, inputs, 1, head.outputs(), logits, kLanes, Epilogue::store);
  const InputForm form = kernels_.input_form(head.type());
  const ptrdiff_t size = form == InputForm::quantised ? 1 : form == InputForm::halves ? 2 : 4;
  call.x = static_cast<const char*>(call.x) + r * call.x_stride * size;
  call.block_begin = block;
  call.block_end = block + 1;
  call.column_origin = block * kLanes;
  call.stream = nullptr;
  run_linear(kernels_, head, call);
  const int columns = std::min(kLanes, config_.vocab_size - block * kLanes);
  for (int i = 0; i < columns; ++i) {
    const Scored found = {logits[i], block * kLanes + i};
    if (better(found, row.best)) row.best = found;
  }
}

void TwoStageHead::settle(const InputRows& inputs, int rows, const float (&floor)[kMostRows], Member& own) {
  for (int r = 0; r < rows; ++r) {
    Row& row = own.rows[at(r)];
    for (size_t i = 0; i < row.most.size(); ++i) {
      if (row.most[i] < floor[r]) continue;
      settle_block(inputs, r, own.blocks.begin + static_cast<int>(i), row);
      ++own.exact_blocks;
    }
  }
}

}  // namespace specee
