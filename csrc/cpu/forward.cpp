#include "cpu/forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace specee {
namespace {

int widest(const ModelConfig& c) { return std::max({c.hidden_size, c.q_dim(), c.intermediate_size}); }

}  // namespace

Forward::Forward(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels,
                 ThreadPool& pool)
    : config_(config),
      weights_(weights),
      kernels_(kernels),
      pool_(pool),
      rope_(config.rope, config.head_dim),
      inputs_(kernels, weights.format(), widest(config), pool.size()),
      qkv_width_(config.q_dim() + 2 * config.kv_dim()),
      state_(static_cast<size_t>(kMaxRows) * config.hidden_size),
      qkv_(static_cast<size_t>(kMaxRows) * qkv_width_),
      attended_(static_cast<size_t>(kMaxRows) * config.q_dim()),
      inner_(static_cast<size_t>(kMaxRows) * config.intermediate_size),
      scratch_(static_cast<size_t>(pool.size())) {
  for (Scratch& scratch : scratch_) scratch.tile.resize(static_cast<size_t>(config.head_dim) * kLanes);
}

void Forward::reserve(int positions) {
  rope_.reserve(positions);
  const int stride = round_up(positions, 4 * kLanes);
  if (stride <= score_stride_) return;
  score_stride_ = stride;
  for (Scratch& scratch : scratch_) scratch.scores.resize(static_cast<size_t>(kMaxHeadGroup) * stride);
}

void Forward::run(std::vector<PassRow>& rows, int to_layer) {
  const size_t bytes = static_cast<size_t>(config_.hidden_size) * sizeof(float);
  const int total = static_cast<int>(rows.size());
  for (int r = 0; r < total; ++r) std::memcpy(state(r), rows[static_cast<size_t>(r)].hidden, bytes);
  pool_.run([&](Team& team) {
    int count = 0;  // rows sorted by depth: those that have reached this layer are the first ones
    for (int layer = rows.front().done; layer < to_layer; ++layer) {
      while (count < total && rows[static_cast<size_t>(count)].done <= layer) ++count;
      run_layer(team, rows, count, layer);
    }
  });
  for (int r = 0; r < total; ++r)
    if (rows[static_cast<size_t>(r)].done < to_layer)
      std::memcpy(rows[static_cast<size_t>(r)].hidden, state(r), bytes);
}

// Barriers stand exactly between products where one member reads what another wrote.
void Forward::run_layer(Team& team, std::vector<PassRow>& rows, int count, int layer) {
  const LayerWeights& w = weights_.layer(layer);
  project_qkv(team, count, w);
  team.barrier();
  rotate_and_store(team, rows, count, layer);
  team.barrier();
  attend(team, rows, count, layer);
  fetch_share(team, w.o, Epilogue::add);
  team.barrier();
  const int q_dim = config_.q_dim();
  const InputRows attended = inputs_.prepare(team, count, q_dim, [&](int r, float* x) {
    std::memcpy(x, attended_.data() + static_cast<size_t>(r) * q_dim,
                static_cast<size_t>(q_dim) * sizeof(float));
  });
  linear_share(team, kernels_, w.o, attended, count, config_.hidden_size, state_.data(), config_.hidden_size,
               Epilogue::add);
  fetch_share(team, w.gate_up, Epilogue::swiglu);
  team.barrier();
  feed_forward(team, count, w);
  if (layer + 1 < config_.num_layers) fetch_share(team, weights_.layer(layer + 1).qkv, Epilogue::store);
  team.barrier();
}

void Forward::project_qkv(Team& team, int count, const LayerWeights& w) {
  const InputRows normed = inputs_.prepare(team, count, config_.hidden_size, [&](int r, float* x) {
    kernels_.rms_norm(state(r), w.attn_norm.data(), config_.norm_eps, config_.hidden_size, x);
  });
  linear_share(team, kernels_, w.qkv, normed, count, qkv_width_, qkv_.data(), qkv_width_, Epilogue::store);
}

void Forward::rotate_and_store(Team& team, std::vector<PassRow>& rows, int count, int layer) {
  const LayerWeights& w = weights_.layer(layer);
  const int dim = config_.head_dim, q_heads = config_.num_heads, kv_heads = config_.num_kv_heads;
  const int units = q_heads + kv_heads;  // a key head and its value head are one unit
  const auto prepare = [&](float* head, const std::vector<float>& norm, int position) {
    if (!norm.empty()) kernels_.rms_norm(head, norm.data(), config_.norm_eps, dim, head);
    rope_.rotate(head, position);
  };
  const Range range = team.share(count * units);
  for (int i = range.begin; i < range.end; ++i) {
    PassRow& row = rows[static_cast<size_t>(i / units)];
    float* qkv = qkv_.data() + static_cast<size_t>(i / units) * qkv_width_;
    const int head = i % units;
    if (head < q_heads) {
      prepare(qkv + head * dim, w.q_norm, row.position);
      continue;
    }
    float* key = qkv + head * dim;  // key heads follow the query heads
    prepare(key, w.k_norm, row.position);
    row.cache->store(layer, head - q_heads, row.slot, key, key + kv_heads * dim);
  }
}

void Forward::attend(Team& team, std::vector<PassRow>& rows, int count, int layer) {
  const int group = config_.num_heads / config_.num_kv_heads, dim = config_.head_dim;
  // Heads of a group share their reads of keys and values, unless that would leave members idle.
  const bool enough = count * config_.num_kv_heads >= team.size();
  const int most = enough ? kMaxHeadGroup : 1;
  const int per_group = (group + most - 1) / most;           // tasks of a group
  const int together = (group + per_group - 1) / per_group;  // heads of a task, evenly
  const int tasks = config_.num_kv_heads * per_group;
  Scratch& scratch = scratch_[static_cast<size_t>(team.index())];
  const Range range = team.share(count * tasks);
  for (int i = range.begin; i < range.end; ++i) {
    const int r = i % count, task = i / count;  // rows inside: a head's keys and values stay in the cache
    const int kv_head = task / per_group;
    const int first = kv_head * group + task % per_group * together;
    const int heads = std::min(together, (kv_head + 1) * group - first);
    const float* q = qkv_.data() + static_cast<size_t>(r) * qkv_width_ + first * dim;
    float* out = attended_.data() + static_cast<size_t>(r) * config_.q_dim() + first * dim;
    attend_task(rows[static_cast<size_t>(r)], layer, kv_head, heads, q, out, scratch);
  }
}

void Forward::attend_task(const PassRow& row, int layer, int kv_head, int heads, const float* q, float* out,
                          Scratch& scratch) {
  const int window = config_.windows[static_cast<size_t>(layer)];
  AttendCall call;
  call.q = q;
  call.heads = heads;
  call.head_dim = config_.head_dim;
  call.keys = row.cache->keys(layer, kv_head);
  call.values = row.cache->values(layer, kv_head);
  call.value_stride = row.cache->value_stride();
  call.dtype = row.cache->dtype();
  call.end = row.position + 1;
  call.begin = window > 0 ? std::max(0, call.end - window) : 0;
  call.identity = row.path.empty() ? call.end : row.identity;
  call.path = row.path.data();
  call.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  call.scores = scratch.scores.data();
  call.score_stride = score_stride_;
  call.tile = scratch.tile.data();
  call.out = out;
  kernels_.attend(call);
}

void Forward::feed_forward(Team& team, int count, const LayerWeights& w) {
  const int inner = config_.intermediate_size;
  const InputRows normed = inputs_.prepare(team, count, config_.hidden_size, [&](int r, float* x) {
    kernels_.rms_norm(state(r), w.mlp_norm.data(), config_.norm_eps, config_.hidden_size, x);
  });
  linear_share(team, kernels_, w.gate_up, normed, count, inner, inner_.data(), inner, Epilogue::swiglu);
  fetch_share(team, w.down, Epilogue::add);
  team.barrier();
  const InputRows activated = inputs_.prepare(team, count, inner, [&](int r, float* x) {
    std::memcpy(x, inner_.data() + static_cast<size_t>(r) * inner,
                static_cast<size_t>(inner) * sizeof(float));
  });
  linear_share(team, kernels_, w.down, activated, count, config_.hidden_size, state_.data(),
               config_.hidden_size, Epilogue::add);
}

}  // namespace specee
