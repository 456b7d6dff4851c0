#include "cpu/ops.h"

#include <algorithm>
#include <cstring>

#include "cpu/isa.h"
#include "specee/errors.h"

namespace specee {

namespace {

std::vector<PackedMatrix> matrices(int copies, int rows, int k, WeightType type) {
  std::vector<PackedMatrix> made;
  for (int i = 0; i < copies; ++i) made.emplace_back(rows, k, type, "a matrix");
  return made;
}

}  // namespace

LinearOp::LinearOp(int outputs, int k, WeightType type, const std::string& isa, int threads, int copies,
                   bool swiglu)
    : outputs_(outputs),
      swiglu_(swiglu),
      kernels_(select_kernels(isa)),
      pool_(threads),
      matrices_(matrices(copies, swiglu ? 2 * round_up(outputs, kLanes) : outputs, k, type)),
      forms_(forms_of(kernels_, {&matrices_.front()})),
      inputs_(kernels_, forms_, k, threads),
      runs_(static_cast<size_t>(threads)),
      streams_(static_cast<size_t>(threads)) {
  const Epilogue epilogue = swiglu ? Epilogue::swiglu : Epilogue::store;
  for (int member = 0; member < threads; ++member) {
    std::vector<WeightRun>& runs = runs_[static_cast<size_t>(member)];
    for (size_t i = 0; i <= matrices_.size(); ++i) {
      const PackedMatrix& matrix = matrices_[i % matrices_.size()];
      runs.push_back(weight_run(matrix, share_blocks(member, threads, matrix, epilogue)));
    }
    streams_[static_cast<size_t>(member)] = {runs.data(), static_cast<int>(runs.size()), 0, 0, 0, 0};
  }
}

void LinearOp::set_rows(int row_begin, int rows, int columns, const void* values, WeightType source) {
  const int total = swiglu_ ? 2 * outputs_ : outputs_;
  if (row_begin < 0 || rows < 0 || rows > total - row_begin || columns != matrices_.front().columns() ||
      !matrices_.front().takes(source))
    throw RowError("the matrix has " + std::to_string(total) + " rows of " +
                   std::to_string(matrices_.front().columns()) + " as " +
                   weight_type_name(matrices_.front().type()) + "; got " + std::to_string(rows) + " of " +
                   std::to_string(columns) + " as " + weight_type_name(source) + " for row " +
                   std::to_string(row_begin));
  const ptrdiff_t width = columns * (is_quantised(source) ? 1 : source == WeightType::f32 ? 4 : 2);
  for (PackedMatrix& matrix : matrices_)
    for (int i = 0; i < rows; ++i) {
      const int row = row_begin + i;
      const Placement placement = {swiglu_ ? row / outputs_ : 0, swiglu_};
      matrix.set_rows(placement, swiglu_ ? row % outputs_ : row, 1,
                      static_cast<const char*>(values) + i * width, source);
    }
}

void LinearOp::run(const float* x, int rows, float* y) {
  if (rows < 1 || rows > kMaxRows)
    throw RowError(std::to_string(rows) + " rows: 1 to " + std::to_string(kMaxRows) + " are possible");
  const size_t copy = next_++ % matrices_.size();
  const PackedMatrix& matrix = matrices_[copy];
  const Epilogue epilogue = swiglu_ ? Epilogue::swiglu : Epilogue::store;
  pool_.run([&](Team& team) {
    WeightStream& stream = streams_[static_cast<size_t>(team.index())];
    stream.current = static_cast<int>(copy);
    stream.left = stream.runs[copy].bytes;
    stream.fetched = stream.fetched_next;  // the call before went on to this copy
    stream.fetched_next = 0;
    const InputRows inputs = inputs_.prepare(team, rows, k(), forms_, [&](int r, float* into) {
      std::memcpy(into, x + static_cast<ptrdiff_t>(r) * k(), static_cast<size_t>(k()) * sizeof(float));
    });
    const LinearCall call = linear_call(kernels_, matrix, inputs, rows, outputs_, y, outputs_, epilogue);
    run_share(kernels_, matrix, call, share_blocks(team.index(), team.size(), matrix, epilogue), &stream);
  });
}

namespace {

ModelConfig attention_config(int num_heads, int num_kv_heads, int head_dim, int context, int copies) {
  if (num_heads < 1 || num_kv_heads < 1 || num_heads % num_kv_heads != 0 || head_dim < 2 ||
      head_dim % 2 != 0 || context < 1 || copies < 1)
    throw ConfigurationError(
        "attention needs heads that are a multiple of the key/value heads, an even head size, a context and "
        "a "
        "copy or more");
  ModelConfig config;
  config.num_layers = copies;
  config.num_heads = num_heads;
  config.num_kv_heads = num_kv_heads;
  config.head_dim = head_dim;
  config.max_position = context;
  config.windows.assign(static_cast<size_t>(copies), 0);
  return config;
}

}  // namespace

AttentionOp::AttentionOp(int num_heads, int num_kv_heads, int head_dim, int context, Dtype dtype,
                         const std::string& isa, int threads, int copies)
    : config_(attention_config(num_heads, num_kv_heads, head_dim, context, copies)),
      kernels_(select_kernels(isa)),
      pool_(threads),
      cache_(config_, context, dtype),
      attention_(config_, kernels_, threads) {
  attention_.reserve(context);
}

size_t AttentionOp::bytes() const {
  const int width = config_.head_dim + cache_.value_stride();
  return static_cast<size_t>(context()) * config_.num_kv_heads * width * dtype_bytes(cache_.dtype());
}

void AttentionOp::set(const float* keys, const float* values) {
  const int dim = config_.head_dim;
  std::vector<float> narrowed(static_cast<size_t>(dim));
  for (int layer = 0; layer < config_.num_layers; ++layer)
    for (int slot = 0; slot < context(); ++slot)
      for (int head = 0; head < config_.num_kv_heads; ++head) {
        const ptrdiff_t at = (static_cast<ptrdiff_t>(slot) * config_.num_kv_heads + head) * dim;
        kernels_.narrow(keys + at, dim, cache_.dtype(), narrowed.data());
        cache_.store_key(layer, head, slot, narrowed.data());
        kernels_.narrow(values + at, dim, cache_.dtype(), narrowed.data());
        cache_.store_value(layer, head, slot, narrowed.data());
      }
}

void AttentionOp::run(const float* q, int rows, float* out) {
  if (rows < 1 || rows > std::min(kMaxRows, context()))
    throw RowError(std::to_string(rows) + " rows: 1 to " + std::to_string(std::min(kMaxRows, context())) +
                   " are possible");
  std::vector<PassRow> pass(static_cast<size_t>(rows));
  for (int r = 0; r < rows; ++r) {
    PassRow& row = pass[static_cast<size_t>(r)];
    row.cache = &cache_;
    row.slot = row.position = context() - rows + r;
    row.identity = context();
  }
  const int layer = next_++ % config_.num_layers;
  pool_.run([&](Team& team) {
    attention_.run(team, pass.data(), rows, layer, {q, config_.q_dim(), out}, nullptr);
  });
}

namespace {

ModelConfig head_config(int vocab, int k) {
  ModelConfig config;
  config.vocab_size = vocab;
  config.hidden_size = k;
  config.intermediate_size = 1;
  config.num_layers = config.num_heads = config.num_kv_heads = 1;
  config.head_dim = 2;
  config.max_position = 1;
  config.windows = {0};
  config.tied_head = true;
  return config;
}

WeightTypes head_types(WeightType type) {
  WeightTypes types = {{{"embed", -1}, type}};
  for (const char* role : {"q", "k", "v", "o", "gate", "up", "down"}) types[{role, 0}] = WeightType::f32;
  return types;
}

}  // namespace

HeadOp::HeadOp(int vocab, int k, WeightType type, const std::string& isa, int threads)
    : config_(head_config(vocab, k)),
      kernels_(select_kernels(isa)),
      pool_(threads),
      weights_(config_, head_types(type)),
      costs_(threads),
      streams_(config_, weights_, threads),
      stream_(config_, weights_, kernels_, pool_, costs_, streams_),
      drawing_(vocab, kernels_, pool_, stream_),
      shadow_(kernels_, pool_, stream_) {
  const std::vector<float> ones(static_cast<size_t>(k), 1.0f);
  weights_.set("final_norm", -1, 0, k, 1, ones.data(), WeightType::f32);
}

void HeadOp::set_rows(int row_begin, int rows, int columns, const void* values, WeightType source) {
  weights_.set("embed", -1, row_begin, rows, columns, values, source);
}

std::vector<const float*> HeadOp::states(const float* x, int rows) const {
  std::vector<const float*> pointers;
  for (int r = 0; r < rows; ++r) pointers.push_back(x + static_cast<ptrdiff_t>(r) * k());
  return pointers;
}

void HeadOp::argmax(const float* x, int rows, int64_t* out) { drawing_.argmax(states(x, rows), out); }

void HeadOp::shadow(const float* x, int rows, int64_t* tokens, float* confidences) {
  shadow_.run(states(x, rows), nullptr, tokens, confidences);
}

}  // namespace specee
