#include "cpu/attention.h"

#include <algorithm>
#include <cmath>

namespace specee {
namespace {

// From here on, reading keys and values twice costs more than a barrier.
constexpr int kLongContext = 512;
constexpr int kDimsTogether = 32;  // a cache line of 16-bit values

int last_end(const std::vector<AttendCall>& calls) {
  int end = 0;
  for (const AttendCall& call : calls) end = std::max(end, call.end);
  return end;
}

int first_chunk(const std::vector<AttendCall>& calls) {
  int begin = calls.front().begin;
  for (const AttendCall& call : calls) begin = std::min(begin, call.begin);
  return begin / kChunk * kChunk;
}

// Weights are fetched during the last chunks only: before that, keys and values would drive them out again.
WeightStream* meanwhile(WeightStream* stream, int from, int end) {
  return from + 2 * kChunk >= end ? stream : nullptr;
}

// Where the chunk that begins at `from` ends. A short rest goes with it if a row of keys is small: a tile of
// keys takes as long as two or three that are computed side by side.
int chunk_end(int from, const std::vector<AttendCall>& calls) {
  const int end = last_end(calls);
  const bool small = calls.front().head_dim * dtype_bytes(calls.front().dtype) <= 128;
  return end - from <= kChunk + (small ? kChunk / 2 : 0) ? end : from + kChunk;
}

// Whether any of the call's positions are in the chunk.
bool touches(const AttendCall& call, int from, int to) { return from < call.end && to > call.begin; }

// Calls f(first, count) for all calls that have positions in the chunk, as many at once as share their keys.
template <class Function>
void each_run(const std::vector<AttendCall>& calls, int from, int to, const Function& f) {
  for (auto first = calls.begin(), last = first; first != calls.end(); first = last) {
    if (!touches(*first, from, to)) {
      last = first + 1;
      continue;
    }
    last = std::find_if(first + 1, calls.end(), [&](const AttendCall& call) {
      return call.keys != first->keys || call.heads != first->heads || !touches(call, from, to);
    });
    f(&*first, static_cast<int>(last - first));
  }
}

// Positions that a row attends to, in a window of that size if it is not 0.
int64_t attended(const PassRow& row, int window) {
  return window > 0 ? std::min(row.position + 1, window) : row.position + 1;
}

// Whether no text has more of the work than one of `parts`, or hardly more.
bool even_texts(const PassRow* rows, int count, int window, int parts) {
  int64_t all = 0;
  for (int r = 0; r < count; ++r) all += attended(rows[r], window);
  for (int r = 0; r < count; ++r) {
    int64_t own = 0;
    for (int other = 0; other < count; ++other)
      if (rows[other].cache == rows[r].cache) own += attended(rows[other], window);
    if (8 * parts * own > 9 * all) return false;
  }
  return true;
}

// The item, row * heads + head, before which `part` of `parts` of the work is.
int item_at(const PassRow* rows, int count, int heads, int window, int part, int parts) {
  int64_t left = 0;
  for (int r = 0; r < count; ++r) left += attended(rows[r], window);
  left = left * heads * part / parts;
  for (int r = 0; r < count; ++r) {
    const int64_t each = attended(rows[r], window);
    if (left < each * heads) return r * heads + static_cast<int>(left / each);
    left -= each * heads;
  }
  return count * heads;
}

}  // namespace

struct Attention::Job {
  int member;
  const PassRow* rows;
  int count, layer;
  AttentionBuffers buffers;
  WeightStream* stream;
  bool by_text;
};

Attention::Attention(const ModelConfig& config, const Kernels& kernels, int members)
    : config_(config), kernels_(kernels), scratch_(static_cast<size_t>(members)) {
  const size_t dim = static_cast<size_t>(config.head_dim), padded = round_up(config.head_dim, kLanes);
  for (Scratch& scratch : scratch_) {
    scratch.calls.reserve(kMostCalls);
    scratch.tile.resize(dim * kLanes);
    scratch.sums.resize(kMostCalls * kMaxHeadGroup);
    scratch.so_far.resize(kMostCalls * kMaxHeadGroup * padded);
  }
}

void Attention::reserve(int positions) {
  int stride = round_up(positions, kChunk);
  if (stride % 1024 == 0) stride += kChunk;  // heads a multiple of 4 KiB apart would share sets of the cache
  if (stride <= score_stride_) return;
  const size_t bytes = static_cast<size_t>(stride) * sizeof(float) * kMostCalls;
  // Touched, and so resident, only as far as they are used.
  shared_ = Memory(bytes * static_cast<size_t>(config_.num_heads), "attention");
  for (Scratch& scratch : scratch_) scratch.weights = Memory(bytes * kMaxHeadGroup, "attention");
  score_stride_ = stride;
}

bool Attention::run(Team& team, const PassRow* rows, int count, int layer, const AttentionBuffers& buffers,
                    WeightStream* stream) {
  const Job job = {team.index(), rows, count, layer, buffers, stream, by_text(team, rows, count, layer)};
  if (job.by_text || !by_position(team, rows, count)) {
    run_heads(team, job);
    return false;
  }
  run_scores(team, job);
  team.barrier();
  run_values(team, job);
  return true;
}

bool Attention::by_text(const Team& team, const PassRow* rows, int count, int layer) const {
  if (config_.num_kv_heads % team.size() == 0) return false;
  return even_texts(rows, count, config_.windows[static_cast<size_t>(layer)], team.size());
}

bool Attention::by_position(const Team& team, const PassRow* rows, int count) const {
  if (count > kMostCalls || config_.num_kv_heads % team.size() == 0) return false;
  int longest = 0;
  for (int r = 0; r < count; ++r) longest = std::max(longest, rows[r].position + 1);
  return longest >= kLongContext;
}

// Query heads are shared out one by one: the same few of all rows to a member, or by text, all of few rows,
// so that a key or value is hardly read by two. Heads of one group that fall to the same member for the same
// row share their reads of keys and values, and so do rows of one text, a chunk of positions at a time.
void Attention::run_heads(const Team& team, const Job& job) {
  const int all = config_.num_heads, group = all / config_.num_kv_heads, count = job.count;
  const int window = config_.windows[static_cast<size_t>(job.layer)];
  const auto first = [&](int member) { return item_at(job.rows, count, all, window, member, team.size()); };
  const Range range = job.by_text ? Range{first(job.member), first(job.member + 1)} : team.share(count * all);
  // The first head of a row at or behind an item: row * all + head, or head * count + row.
  const auto head_at = [&](int item, int r) {
    return job.by_text ? std::clamp(item - r * all, 0, all) : (item - r + count - 1) / count;
  };
  std::vector<AttendCall>& calls = calls_of(job.member);
  const int most_parts = (group + kMaxHeadGroup - 1) / kMaxHeadGroup;
  for (int kv_head = 0; kv_head < config_.num_kv_heads; ++kv_head) {
    for (int part = 0; part < most_parts; ++part)  // rows inside: parts of as many heads follow each other
      for (int r = 0; r < count; ++r) {
        const int begin = std::max(kv_head * group, head_at(range.begin, r));
        const int end = std::min((kv_head + 1) * group, head_at(range.end, r));
        const int parts = (std::max(0, end - begin) + kMaxHeadGroup - 1) / kMaxHeadGroup;
        if (part >= parts) continue;
        const int head = begin + (end - begin) * part / parts;
        const int next = begin + (end - begin) * (part + 1) / parts;
        calls.push_back(call_for(job, r, kv_head, head, next - head, static_cast<int>(calls.size())));
        if (calls.size() == kMostCalls) complete(calls, job.stream);
      }
    if (!calls.empty()) complete(calls, job.stream);
  }
}

void Attention::complete(std::vector<AttendCall>& calls, WeightStream* stream) {
  const int end = last_end(calls);
  for (AttendCall& call : calls) call.stream = meanwhile(stream, 0, end);
  for (int from = first_chunk(calls), to; from < end; from = to) {
    to = chunk_end(from, calls);
    each_run(calls, from, to,
             [&](const AttendCall* run, int count) { kernels_.attend_scores(run, count, from, to); });
  }
  for (const AttendCall& call : calls) kernels_.attend_weights(call);
  sum_up(calls, 0, round_up(config_.head_dim, kLanes), stream);
}

void Attention::sum_up(std::vector<AttendCall>& calls, int dim_begin, int dim_end, WeightStream* stream) {
  const int end = last_end(calls);
  for (int from = first_chunk(calls), to; from < end; from = to) {
    to = chunk_end(from, calls);
    for (AttendCall& call : calls) call.stream = meanwhile(stream, from, end);
    each_run(calls, from, to, [&](const AttendCall* run, int count) {
      kernels_.attend_values(run, count, from, to, dim_begin, dim_end);
    });
  }
  calls.clear();
}

// Chunks of positions of each key/value head, shared out; all rows and heads of one.
void Attention::run_scores(const Team& team, const Job& job) {
  const int group = config_.num_heads / config_.num_kv_heads;
  int longest = 0;
  for (int r = 0; r < job.count; ++r) longest = std::max(longest, job.rows[r].position + 1);
  const int chunks = (longest + kChunk - 1) / kChunk;
  const Range range = team.share(config_.num_kv_heads * chunks);
  std::vector<AttendCall>& calls = calls_of(job.member);
  for (int item = range.begin; item < range.end; ++item) {
    const int kv_head = item / chunks, from = item % chunks * kChunk;
    for (int head = kv_head * group; head < (kv_head + 1) * group; head += kMaxHeadGroup) {
      const int heads = std::min(kMaxHeadGroup, (kv_head + 1) * group - head);
      for (int r = 0; r < job.count; ++r) {
        calls.push_back(call_for(job, r, kv_head, head, heads, r));
        calls.back().weights = shared_scores(r, head);
      }
      each_run(calls, from, from + kChunk, [&](const AttendCall* run, int count) {
        kernels_.attend_scores(run, count, from, from + kChunk);
      });
      calls.clear();
    }
  }
}

// Dimensions of each key/value head, shared out; all rows and heads of one.
void Attention::run_values(const Team& team, const Job& job) {
  const int group = config_.num_heads / config_.num_kv_heads, width = round_up(config_.head_dim, kLanes);
  const int pieces = (width + kDimsTogether - 1) / kDimsTogether;
  const Range range = team.share(config_.num_kv_heads * pieces);
  std::vector<AttendCall>& calls = calls_of(job.member);
  for (int kv_head = range.begin / pieces; kv_head * pieces < range.end; ++kv_head) {
    const int dim_begin = std::max(0, range.begin - kv_head * pieces) * kDimsTogether;
    const int dim_end = std::min(width, (range.end - kv_head * pieces) * kDimsTogether);
    for (int head = kv_head * group; head < (kv_head + 1) * group; head += kMaxHeadGroup) {
      const int heads = std::min(kMaxHeadGroup, (kv_head + 1) * group - head);
      for (int r = 0; r < job.count; ++r) {
        calls.push_back(call_for(job, r, kv_head, head, heads, static_cast<int>(calls.size())));
        calls.back().scores = shared_scores(r, head);
        kernels_.attend_weights(calls.back());
        if (calls.size() == kMostCalls) sum_up(calls, dim_begin, dim_end, job.stream);
      }
    }
    if (!calls.empty()) sum_up(calls, dim_begin, dim_end, job.stream);
  }
}

float* Attention::shared_scores(int row, int head) const {
  return reinterpret_cast<float*>(shared_.data()) +
         (static_cast<ptrdiff_t>(row) * config_.num_heads + head) * score_stride_;
}

// The call with number `number` of those that go together.
AttendCall Attention::call_for(const Job& job, int r, int kv_head, int head, int heads, int number) {
  const PassRow& row = job.rows[r];
  const int window = config_.windows[static_cast<size_t>(job.layer)];
  Scratch& scratch = scratch_[static_cast<size_t>(job.member)];
  const ptrdiff_t first = static_cast<ptrdiff_t>(number) * kMaxHeadGroup;
  AttendCall call;
  call.q = job.buffers.queries + r * job.buffers.stride + head * config_.head_dim;
  call.heads = heads;
  call.head_dim = config_.head_dim;
  call.keys = row.cache->keys(job.layer, kv_head);
  call.values = row.cache->values(job.layer, kv_head);
  call.value_stride = row.cache->value_stride();
  call.dtype = row.cache->dtype();
  call.end = row.position + 1;
  call.begin = window > 0 ? std::max(0, call.end - window) : 0;
  call.identity = row.path.empty() ? call.end : row.identity;
  call.path = row.path.data();
  call.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  call.weights = reinterpret_cast<float*>(scratch.weights.data()) + first * score_stride_;
  call.scores = call.weights;
  call.score_stride = score_stride_;
  call.sums = scratch.sums.data() + first;
  call.sum_so_far = scratch.so_far.data() + first * call.value_stride;
  call.tile = scratch.tile.data();
  call.out = job.buffers.out + static_cast<ptrdiff_t>(r) * config_.q_dim() + head * config_.head_dim;
  call.stream = nullptr;
  return call;
}

}  // namespace specee
