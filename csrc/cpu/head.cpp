#include "cpu/head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>

#include "specee/errors.h"

namespace specee {
namespace {

constexpr int kPieceBlocks = 16;
constexpr int kPieceColumns = kPieceBlocks * kLanes;

struct Scored {
  float value;
  int token;
};

bool better(const Scored& a, const Scored& b) {
  return a.value > b.value || (a.value == b.value && a.token < b.token);
}

// The k best seen so far, as a heap whose top is the worst of them.
void offer(std::vector<Scored>& best, size_t k, Scored candidate) {
  if (best.size() < k) {
    best.push_back(candidate);
    std::push_heap(best.begin(), best.end(), better);
  } else if (better(candidate, best.front())) {
    std::pop_heap(best.begin(), best.end(), better);
    best.back() = candidate;
    std::push_heap(best.begin(), best.end(), better);
  }
}

}  // namespace

Head::Head(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels, ThreadPool& pool,
           Costs& costs, WeightStreams& streams)
    : config_(config),
      weights_(weights),
      kernels_(kernels),
      pool_(pool),
      costs_(costs),
      streams_(streams),
      forms_(forms_of(kernels, {&weights.head()})),
      inputs_(kernels, forms_, config.hidden_size, pool.size()),
      pieces_(static_cast<size_t>(pool.size()),
              std::vector<float>(static_cast<size_t>(kMaxRows) * kPieceColumns)) {}

template <class Consume>
void Head::stream(const std::vector<const float*>& hidden, const Consume& consume) {
  const PackedMatrix& matrix = weights_.head();
  const int total = static_cast<int>(hidden.size());
  std::vector<char> finite(static_cast<size_t>(pool_.size()), 1);  // a team must not throw
  pool_.run([&](Team& team) {
    const size_t member = static_cast<size_t>(team.index());
    Lap lap(costs_, team.index());
    std::vector<float>& piece = pieces_[member];
    for (int row = 0; row < total; row += kMaxRows) {
      const int rows = std::min(kMaxRows, total - row);
      const InputRows inputs = inputs_.prepare(team, rows, config_.hidden_size, forms_, [&](int r, float* x) {
        kernels_.rms_norm(hidden[static_cast<size_t>(row + r)], weights_.final_norm().data(),
                          config_.norm_eps, config_.hidden_size, x);
        for (int i = 0; i < config_.hidden_size; ++i) finite[member] &= std::isfinite(x[i]);
      });
      const Range range = share_blocks(team.index(), team.size(), matrix, Epilogue::store);
      streams_.begin_head(team.index());
      for (int block = range.begin; block < range.end; block += kPieceBlocks) {
        const int begin = block * kLanes;
        const int end = std::min(range.end, block + kPieceBlocks);
        LinearCall call = linear_call(kernels_, matrix, inputs, rows, matrix.outputs(), piece.data(),
                                      kPieceColumns, Epilogue::store);
        call.block_begin = block;
        call.block_end = end;
        call.stream = streams_.of(team.index());
        call.column_origin = begin;
        run_linear(kernels_, matrix, call);
        const int columns = std::min(end * kLanes, matrix.outputs()) - begin;
        consume(team.index(), Piece{row, rows, begin, columns, piece.data(), kPieceColumns});
      }
      streams_.done(team.index());
      lap.mark(Step::head);
      team.barrier();  // inputs may be overwritten
      lap.waited();
    }
  });
  if (std::find(finite.begin(), finite.end(), 0) != finite.end())
    throw NumericalError(
        "the final norm of a row is infinite or not a number: the model overflows fp32; check the "
        "checkpoint");
}

void Head::logits(const std::vector<const float*>& hidden, float* out) {
  stream(hidden, [&](int, const Piece& p) {
    for (int r = 0; r < p.rows; ++r)
      std::memcpy(out + static_cast<size_t>(p.row + r) * config_.vocab_size + p.begin,
                  p.values + r * p.stride, static_cast<size_t>(p.columns) * sizeof(float));
  });
}

void Head::argmax(const std::vector<const float*>& hidden, int64_t* out) {
  const size_t rows = hidden.size();
  const Scored none{-std::numeric_limits<float>::infinity(), std::numeric_limits<int>::max()};
  std::vector<Scored> best(rows * static_cast<size_t>(pool_.size()), none);
  stream(hidden, [&](int member, const Piece& p) {
    for (int r = 0; r < p.rows; ++r) {
      Scored& top = best[static_cast<size_t>(member) * rows + static_cast<size_t>(p.row + r)];
      const float* values = p.values + r * p.stride;
      if (!(kernels_.largest(values, p.columns) > top.value)) continue;  // pieces come lowest ids first
      for (int i = 0; i < p.columns; ++i)
        if (better({values[i], p.begin + i}, top)) top = {values[i], p.begin + i};
    }
  });
  for (size_t r = 0; r < rows; ++r) {
    Scored top = none;
    for (size_t member = 0; member < static_cast<size_t>(pool_.size()); ++member)
      if (better(best[member * rows + r], top)) top = best[member * rows + r];
    out[r] = top.token;
  }
}

void Head::topk(const std::vector<const float*>& hidden, int k, int64_t* ids, float* values) {
  const size_t rows = hidden.size(), wanted = static_cast<size_t>(k);
  std::vector<std::vector<Scored>> best(rows * static_cast<size_t>(pool_.size()));
  for (std::vector<Scored>& list : best) list.reserve(wanted);  // nothing may throw in a team
  stream(hidden, [&](int member, const Piece& p) {
    for (int r = 0; r < p.rows; ++r)
      for (int i = 0; i < p.columns; ++i)
        offer(best[static_cast<size_t>(member) * rows + static_cast<size_t>(p.row + r)], wanted,
              {p.values[r * p.stride + i], p.begin + i});
  });
  for (size_t r = 0; r < rows; ++r) {
    std::vector<Scored> merged;
    for (size_t member = 0; member < static_cast<size_t>(pool_.size()); ++member)
      for (const Scored& candidate : best[member * rows + r]) offer(merged, wanted, candidate);
    std::sort(merged.begin(), merged.end(), better);
    for (size_t i = 0; i < merged.size(); ++i) {
      ids[r * wanted + i] = merged[i].token;
      values[r * wanted + i] = merged[i].value;
    }
  }
}

void Head::sample(const std::vector<const float*>& hidden, const std::vector<Draw>& draws, int64_t* out) {
  const auto plain = [](const Draw& draw) { return draw.sampling.plain_greedy(); };
  if (std::all_of(draws.begin(), draws.end(), plain)) return argmax(hidden, out);
  const size_t vocab = static_cast<size_t>(config_.vocab_size);
  std::vector<float> all(hidden.size() * vocab);
  logits(hidden, all.data());
  std::vector<std::exception_ptr> failures(static_cast<size_t>(pool_.size()));  // a team must not throw
  pool_.run([&](Team& team) {
    const Range range = team.share(static_cast<int>(hidden.size()));
    try {
      for (size_t r = static_cast<size_t>(range.begin); r < static_cast<size_t>(range.end); ++r) {
        const Draw& draw = draws[r];
        float* row = all.data() + r * vocab;
        if (draw.sampling.penalised()) penalise(row, draw.path, draw.sampling.repetition_penalty);
        out[r] = sample_token(row, config_.vocab_size, draw.sampling, draw.position);
      }
    } catch (...) {
      failures[static_cast<size_t>(team.index())] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

}  // namespace specee
