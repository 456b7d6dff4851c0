#include "cpu/forward.h"

#include <algorithm>
#include <cstring>

namespace specee {
namespace {

void wait(Team& team, Lap& lap) {
  team.barrier();
  lap.waited();
}

int widest(const ModelConfig& c) { return std::max({c.hidden_size, c.q_dim(), c.intermediate_size}); }

}  // namespace

Forward::Forward(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels,
                 ThreadPool& pool, Costs& costs, WeightStreams& streams)
    : config_(config),
      weights_(weights),
      kernels_(kernels),
      pool_(pool),
      costs_(costs),
      streams_(streams),
      rope_(config.rope, config.head_dim),
      attention_(config, kernels, pool.size()),
      inputs_(kernels, forms_of(kernels, weights.matrices()), widest(config), pool.size()),
      qkv_width_(config.q_dim() + 2 * config.kv_dim()),
      state_(static_cast<size_t>(kMaxRows) * config.hidden_size),
      qkv_(static_cast<size_t>(kMaxRows) * qkv_width_),
      attended_(static_cast<size_t>(kMaxRows) * config.q_dim()),
      inner_(static_cast<size_t>(kMaxRows) * config.intermediate_size),
      narrowed_(static_cast<size_t>(pool.size()), std::vector<float>(static_cast<size_t>(config.head_dim))) {
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const LayerWeights& w = weights.layer(layer);
    LayerForms forms;
    for (const PackedMatrix& part : w.qkv) forms.qkv.add(forms_of(kernels, {&part}));
    forms.o = forms_of(kernels, {&w.o});
    forms.gate_up = forms_of(kernels, {&w.gate_up});
    forms.down = forms_of(kernels, {&w.down});
    forms_.push_back(forms);
  }
}

void Forward::reserve(int positions) {
  rope_.reserve(positions);
  attention_.reserve(positions);
}

void Forward::run(std::vector<PassRow>& rows, int to_layer) {
  const size_t bytes = static_cast<size_t>(config_.hidden_size) * sizeof(float);
  const int total = static_cast<int>(rows.size());
  for (int r = 0; r < total; ++r) std::memcpy(state(r), rows[static_cast<size_t>(r)].hidden, bytes);
  const bool keeps =
      std::any_of(rows.begin(), rows.end(), [](const PassRow& row) { return row.kept != nullptr; });
  pool_.run([&](Team& team) {
    Lap lap(costs_, team.index());
    streams_.begin(team.index(), rows.front().done, to_layer);
    int count = 0;  // rows sorted by depth: those that have reached this layer are the first ones
    for (int layer = rows.front().done; layer < to_layer; ++layer) {
      while (count < total && rows[static_cast<size_t>(count)].done <= layer) ++count;
      run_layer(team, lap, rows, count, layer);
      if (keeps) keep(team, rows, count, layer);
      wait(team, lap);
    }
  });
  for (int r = 0; r < total; ++r)
    if (rows[static_cast<size_t>(r)].done < to_layer)
      std::memcpy(rows[static_cast<size_t>(r)].hidden, state(r), bytes);
}

// A member keeps what it has just computed, out of its own cache: the down product's columns.
void Forward::keep(const Team& team, const std::vector<PassRow>& rows, int count, int layer) {
  const PackedMatrix& down = weights_.layer(layer).down;
  const Range blocks = share_blocks(team.index(), team.size(), down, Epilogue::add);
  const int begin = blocks.begin * kLanes, end = std::min(blocks.end * kLanes, config_.hidden_size);
  if (begin >= end) return;
  for (int r = 0; r < count; ++r) {
    const PassRow& row = rows[static_cast<size_t>(r)];
    const int at = row.kept != nullptr ? row.kept_at[layer + 1] : -1;
    if (at >= 0)
      std::memcpy(row.kept + at + begin, state(r) + begin, static_cast<size_t>(end - begin) * sizeof(float));
  }
}

// Barriers stand exactly between steps where one member reads what another wrote. The last one is the
// caller's.
void Forward::run_layer(Team& team, Lap& lap, std::vector<PassRow>& rows, int count, int layer) {
  const LayerWeights& w = weights_.layer(layer);
  project_heads(team, lap, rows, count, layer);
  wait(team, lap);
  const AttentionBuffers buffers = {qkv_.data(), qkv_width_, attended_.data()};
  if (attention_.run(team, rows.data(), count, layer, buffers, streams_.of(team.index()))) lap.passed();
  lap.mark(Step::attention);
  wait(team, lap);
  const int q_dim = config_.q_dim();
  const Forms& forms = forms_[static_cast<size_t>(layer)].o;
  const InputRows attended = inputs_.prepare(team, count, q_dim, forms, [&](int r, float* x) {
    std::memcpy(x, attended_.data() + static_cast<size_t>(r) * q_dim,
                static_cast<size_t>(q_dim) * sizeof(float));
  });
  multiply(team, w.o, attended, count, config_.hidden_size, state_.data(), Epilogue::add);
  lap.mark(Step::o);
  wait(team, lap);
  feed_forward(team, lap, count, layer);
}

void Forward::project_heads(Team& team, Lap& lap, std::vector<PassRow>& rows, int count, int layer) {
  const LayerWeights& w = weights_.layer(layer);
  const Forms& forms = forms_[static_cast<size_t>(layer)].qkv;
  const InputRows normed = inputs_.prepare(team, count, config_.hidden_size, forms, [&](int r, float* x) {
    if (w.attn_norm.empty())
      std::memcpy(x, state(r), static_cast<size_t>(config_.hidden_size) * sizeof(float));
    else
      kernels_.rms_norm(state(r), w.attn_norm.data(), config_.norm_eps, config_.hidden_size, x);
  });
  const Range mine = share_heads(team.index(), team.size(), config_);
  multiply_heads(team, normed, count, w, mine);
  lap.mark(Step::qkv);
  finish_heads(team, rows, count, layer, mine);
  lap.mark(Step::heads);
}

void Forward::multiply_heads(Team& team, const InputRows& inputs, int rows, const LayerWeights& w,
                             Range heads) {
  int first = 0;  // output of all heads with which a part begins
  for (const PackedMatrix& part : w.qkv) {
    const LinearCall call = linear_call(kernels_, part, inputs, rows, part.outputs(), qkv_.data() + first,
                                        qkv_width_, Epilogue::store);
    run_share(kernels_, part, call, head_blocks(heads, config_, part, first), streams_.of(team.index()));
    streams_.done(team.index());
    first += part.outputs();
  }
}

// This member's share of a product.
void Forward::multiply(Team& team, const PackedMatrix& matrix, const InputRows& inputs, int rows, int outputs,
                       float* y, Epilogue epilogue) {
  const LinearCall call = linear_call(kernels_, matrix, inputs, rows, outputs, y, outputs, epilogue);
  run_share(kernels_, matrix, call, share_blocks(team.index(), team.size(), matrix, epilogue),
            streams_.of(team.index()));
  streams_.done(team.index());
}

void Forward::finish_heads(Team& team, std::vector<PassRow>& rows, int count, int layer, Range heads) {
  void* narrowed = narrowed_[static_cast<size_t>(team.index())].data();
  const LayerWeights& w = weights_.layer(layer);
  const int dim = config_.head_dim, keys = config_.num_heads, values = keys + config_.num_kv_heads;
  for (int r = 0; r < count; ++r) {
    PassRow& row = rows[static_cast<size_t>(r)];
    for (int head = heads.begin; head < heads.end; ++head) {
      float* x = qkv_.data() + static_cast<size_t>(r) * qkv_width_ + head * dim;
      if (head >= values) {
        kernels_.narrow(x, dim, row.cache->dtype(), narrowed);
        row.cache->store_value(layer, head - values, row.slot, narrowed);
        continue;
      }
      const std::vector<float>& norm = head < keys ? w.q_norm : w.k_norm;
      if (!norm.empty()) kernels_.rms_norm(x, norm.data(), config_.norm_eps, dim, x);
      kernels_.rotate(x, rope_.cosine(row.position), rope_.sine(row.position), rope_.half());
      if (head < keys) continue;
      kernels_.narrow(x, dim, row.cache->dtype(), narrowed);
      row.cache->store_key(layer, head - keys, row.slot, narrowed);
    }
  }
}

void Forward::feed_forward(Team& team, Lap& lap, int count, int layer) {
  const LayerWeights& w = weights_.layer(layer);
  const LayerForms& forms = forms_[static_cast<size_t>(layer)];
  const int inner = config_.intermediate_size;
  const InputRows normed =
      inputs_.prepare(team, count, config_.hidden_size, forms.gate_up, [&](int r, float* x) {
        kernels_.rms_norm(state(r), w.mlp_norm.data(), config_.norm_eps, config_.hidden_size, x);
      });
  multiply(team, w.gate_up, normed, count, inner, inner_.data(), Epilogue::swiglu);
  lap.mark(Step::gate_up);
  wait(team, lap);
  const InputRows activated = inputs_.prepare(team, count, inner, forms.down, [&](int r, float* x) {
    std::memcpy(x, inner_.data() + static_cast<size_t>(r) * inner,
                static_cast<size_t>(inner) * sizeof(float));
  });
  multiply(team, w.down, activated, count, config_.hidden_size, state_.data(), Epilogue::add);
  lap.mark(Step::down);
}

}  // namespace specee
