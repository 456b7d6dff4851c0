#include "cpu/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "cpu/isa.h"
#include "specee/errors.h"

namespace specee {

Engine::Engine(const ModelConfig& config, const WeightTypes& types, const std::string& isa, int threads)
    : config_(config),
      kernels_(select_kernels(isa)),
      pool_(threads),
      costs_(threads),
      weights_(config_, types),
      streams_(config_, weights_, threads),
      forward_(config_, weights_, kernels_, pool_, costs_, streams_),
      head_stream_(config_, weights_, kernels_, pool_, costs_, streams_),
      two_stage_(config_, weights_, kernels_, pool_, costs_, head_stream_),
      head_(config_.vocab_size, head_stream_, threads),
      drawing_(config_.vocab_size, kernels_, pool_, head_stream_, &two_stage_),
      shadow_(kernels_, pool_, head_stream_),
      scoring_(config_, weights_, kernels_, pool_),
      exit_check_(kernels_, scoring_),
      draft_heads_(config_, weights_.head()) {}

void Engine::complete() {
  weights_.check_complete();
  const std::lock_guard<std::mutex> lock(mutex_);
  two_stage_.complete();
}

void Engine::use_two_stages(bool on) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (on) two_stage_.make();
  two_stage_.enable(on);
}

Engine::Bytes Engine::bytes() {
  const std::lock_guard<std::mutex> lock(mutex_);
  Bytes all = {weights_.bytes() + two_stage_.bytes(), weights_.step_bytes(), weights_.bytes_by_step()};
  if (two_stage_.coarse() == nullptr) return all;
  all.step -= weights_.head().bytes() - two_stage_.bytes();
  all.by_step["head"] = two_stage_.bytes();
  return all;
}

Engine::TwoStages Engine::two_stages() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {two_stage_.answered(), two_stage_.reread()};
}

void Engine::check_capacity(int64_t capacity) const {
  if (capacity < 1 || capacity > config_.max_position)
    throw CapacityError("a sequence of " + std::to_string(capacity) +
                        " positions does not fit this model: 1 to " + std::to_string(config_.max_position) +
                        " are possible");
}

std::unique_ptr<Sequence> Engine::sequence(int capacity, Dtype dtype, bool poison) {
  check_capacity(capacity);
  const std::lock_guard<std::mutex> lock(mutex_);
  auto made = std::make_unique<Sequence>(config_, capacity, dtype, poison);
  forward_.reserve(capacity);
  return made;
}

size_t count_rows(const Work& work) {
  size_t rows = 0;
  for (const WorkItem& item : work) rows += item.slots.size();
  return rows;
}

void Engine::check(const Work& work) const {
  std::set<const Sequence*> seen;
  for (const WorkItem& item : work) {
    if (item.sequence->model() != &config_)
      throw RowError(
          "a sequence of another model; make sequences with this "
          "backend's sequence()");
    if (!seen.insert(item.sequence).second)
      throw RowError(
          "a sequence appears twice in one call; name all its rows "
          "in one entry");
    std::set<int> slots;
    for (const int slot : item.slots) {
      item.sequence->row(slot);
      if (!slots.insert(slot).second)
        throw RowError("slot " + std::to_string(slot) + " appears twice in one call; name each row once");
    }
  }
}

// The rows to move, ancestors first: the named ones and every row before them that is not at to_layer yet.
std::vector<Engine::Member> Engine::closure(const Work& work, int to_layer) const {
  std::vector<Member> members;
  for (const WorkItem& item : work) {
    std::vector<Member> own;
    std::vector<char> named(static_cast<size_t>(item.sequence->capacity()), 0), seen = named;
    for (const int slot : item.slots) named[static_cast<size_t>(slot)] = 1;
    item.sequence->release_hidden(named);
    for (const int start : item.slots)
      for (int slot = start; slot >= 0 && !seen[static_cast<size_t>(slot)];) {
        const Row& row = item.sequence->row(slot);
        if (row.done >= to_layer) break;  // so are all rows before it
        seen[static_cast<size_t>(slot)] = 1;
        own.push_back({item.sequence, slot, named[static_cast<size_t>(slot)] != 0});
        slot = row.parent;
      }
    std::stable_sort(own.begin(), own.end(), [](const Member& a, const Member& b) {
      return a.sequence->row(a.slot).position < b.sequence->row(b.slot).position;
    });
    members.insert(members.end(), own.begin(), own.end());
  }
  return members;
}

void Engine::check_layer(int layer) const {
  if (layer < 1 || layer > config_.num_layers)
    throw RowError("cannot advance to layer " + std::to_string(layer) + ": 1 to " +
                   std::to_string(config_.num_layers) + " layers can be done");
}

void Engine::advance(const Work& work, int to_layer, const std::function<void()>& between) {
  check_layer(to_layer);
  check(work);
  const std::vector<Member> members = closure(work, to_layer);
  for (size_t begin = 0; begin < members.size(); begin += kMaxRows) {
    if (begin > 0) between();
    const size_t end = std::min(members.size(), begin + kMaxRows);
    const auto at = [&](size_t i) { return members.begin() + static_cast<std::ptrdiff_t>(i); };
    const std::lock_guard<std::mutex> lock(mutex_);
    advance_block({at(begin), at(end)}, to_layer);
  }
}

// `members`: as closure() orders them.
void Engine::begin_kept(const std::vector<Member>& members, int to_layer) const {
  const Sequence* current = nullptr;
  int complete = 0;  // positions of it after the pass
  for (auto member = members.rbegin(); member != members.rend(); ++member) {
    Sequence& sequence = *member->sequence;
    if (&sequence != current) complete = 0;
    current = &sequence;
    if (to_layer == config_.num_layers && member->slot < sequence.length())
      complete = std::max(complete, member->slot + 1);
    sequence.begin_kept(member->slot, complete);
  }
}

void Engine::advance_block(const std::vector<Member>& members, int to_layer) {
  begin_kept(members, to_layer);
  std::vector<Member> order = members;
  std::stable_sort(order.begin(), order.end(), [](const Member& a, const Member& b) {
    return a.sequence->row(a.slot).done < b.sequence->row(b.slot).done;
  });
  std::vector<PassRow> rows;
  for (const Member& member : order) {
    Row& row = member.sequence->row(member.slot);
    if (row.hidden == nullptr) {
      row.hidden = std::make_unique<float[]>(static_cast<size_t>(config_.hidden_size));
      weights_.embed().read_row(row.token, row.hidden.get());
    }
    PassRow pass{&member.sequence->cache(), member.slot, row.position,
                 member.sequence->length(), {},          row.done,
                 row.hidden.get()};
    pass.kept = row.kept.get();
    pass.kept_at = member.sequence->keeps().offsets().data();
    pass.path = member.sequence->path(member.slot);
    // Drafts of a chain sit where they will be committed: no gathering.
    bool in_place = true;
    for (size_t i = 0; i < pass.path.size(); ++i)
      in_place &= pass.path[i] == pass.identity + static_cast<int>(i);
    if (in_place) pass.path.clear();
    rows.push_back(std::move(pass));
  }
  forward_.run(rows, to_layer);
  for (const Member& member : order) member.sequence->note_done(member.slot, to_layer, member.named);
}

std::vector<const float*> Engine::states(const Work& work) const {
  check(work);
  std::vector<const float*> pointers;
  for (const WorkItem& item : work)
    for (const int slot : item.slots) {
      const Row& row = static_cast<const Sequence*>(item.sequence)->row(slot);
      if (row.done == 0)
        throw RowError("the row in slot " + std::to_string(slot) +
                       " has been through no layer yet; advance it first");
      if (row.hidden == nullptr)
        throw RowError("the hidden state of slot " + std::to_string(slot) +
                       " was let go: complete rows keep it only if their "
                       "sequence's latest advance named them");
      pointers.push_back(row.hidden.get());
    }
  return pointers;
}

// Weights are finite, so logits are numbers if the state is.
void Engine::check_finite(const std::vector<const float*>& states) const {
  for (const float* state : states)
    for (int i = 0; i < config_.hidden_size; ++i)
      if (!std::isfinite(state[i]))
        throw NumericalError(
            "a hidden state is infinite or not a number: the "
            "model overflows its formats; load "
            "it with weights='fp32' and kv_dtype='fp32', or "
            "check the checkpoint");
}

std::vector<const float*> Engine::finite_states(const Work& work) const {
  std::vector<const float*> pointers = states(work);
  check_finite(pointers);
  return pointers;
}

void Engine::hidden(const Work& work, float* out) {
  for (const float* state : states(work)) {
    std::memcpy(out, state, static_cast<size_t>(config_.hidden_size) * sizeof(float));
    out += config_.hidden_size;
  }
}

void Engine::logits(const Work& work, const DraftHead* head, float* out) {
  check(head);
  const std::lock_guard<std::mutex> lock(mutex_);
  head_.logits(finite_states(work), head, out);
}

void Engine::argmax(const Work& work, int64_t* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  drawing_.argmax(finite_states(work), out);
}

Engine::Seconds Engine::verify(const Work& work, const std::vector<Sampling>* sampling,
                               const std::function<void()>& between, int64_t* out) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  advance(work, config_.num_layers, between);
  const auto middle = Clock::now();
  sampling != nullptr ? sample(work, *sampling, out) : argmax(work, out);
  const auto seconds = [](Clock::duration time) { return std::chrono::duration<double>(time).count(); };
  return {seconds(middle - begin), seconds(Clock::now() - middle)};
}

void Engine::check_topk(int64_t k) const {
  if (k < 1 || k > config_.vocab_size)
    throw RowError("top-k of " + std::to_string(k) + " tokens: 1 to " + std::to_string(config_.vocab_size) +
                   " are possible");
}

void Engine::topk(const Work& work, int k, int64_t* ids, float* values) {
  check_topk(k);
  const std::lock_guard<std::mutex> lock(mutex_);
  head_.topk(finite_states(work), nullptr, k, ids, values);
}

std::vector<Draw> Engine::draws(const Work& work, const std::vector<Sampling>& sampling) const {
  const size_t rows = count_rows(work);
  if (sampling.size() != rows)
    throw RowError("got " + std::to_string(sampling.size()) + " Sampling for " + std::to_string(rows) +
                   " rows; give one a row");
  std::vector<Draw> draws;
  for (const WorkItem& item : work)
    for (const int slot : item.slots) {
      const Sequence& sequence = *item.sequence;
      const Sampling& own = sampling[draws.size()];
      draws.push_back({own, static_cast<uint64_t>(sequence.row(slot).position) + 1, {}});
      if (own.penalised()) draws.back().path = sequence.distinct_tokens(slot);
    }
  return draws;
}

void Engine::sample(const Work& work, const std::vector<Sampling>& sampling, int64_t* out) {
  draft(work, sampling, nullptr, out, nullptr);
}

void Engine::draft(const Work& work, const std::vector<Sampling>& sampling, const DraftHead* head,
                   int64_t* tokens, float* confidences) {
  check(head);
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::vector<const float*> pointers = finite_states(work);
  drawing_.draw(pointers, draws(work, sampling), head, tokens, confidences);
}

void Engine::shadow(const Work& work, const std::vector<int>& layers, const DraftHead* head, int64_t* tokens,
                    float* confidences) {
  check(head);
  check(work);
  std::vector<const float*> kept;
  for (const WorkItem& item : work)
    for (const int slot : item.slots)
      for (const int layer : layers) kept.push_back(item.sequence->kept_state(slot, layer));
  const std::lock_guard<std::mutex> lock(mutex_);
  check_finite(kept);
  shadow_.run(kept, head, tokens, confidences);
}

std::unique_ptr<DraftHead> Engine::draft_head(std::unique_ptr<const Adapter> adapter,
                                              const std::vector<int64_t>* tokens, const HeadBlocks* blocks,
                                              bool normed) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (adapter != nullptr) head_stream_.reserve_adapter(adapter->width());
  if (blocks != nullptr) head_stream_.reserve_type(blocks->type);
  return draft_heads_.make(std::move(adapter), tokens, blocks, normed);
}

std::unique_ptr<Drafter> Engine::drafter(const std::vector<int>& layers, int inner, WeightType type,
                                         bool plain) {
  return std::make_unique<Drafter>(config_, weights_, kernels_, pool_, head_stream_, drawing_, layers, inner,
                                   type, plain);
}

std::unique_ptr<DrafterColumn> Engine::drafter_column(Drafter& drafter, int capacity, Dtype dtype,
                                                      bool poison) {
  check_capacity(capacity);
  check(drafter);
  const std::lock_guard<std::mutex> lock(mutex_);
  return drafter.column(capacity, dtype, poison);
}

std::vector<Chain> Engine::draft_chains(Drafter& drafter, const std::vector<ChainCall>& calls,
                                        const DraftHead* head) {
  check(head);
  Work work;
  for (const ChainCall& call : calls) work.push_back({call.sequence, {}});
  check(work);
  check(drafter);
  const std::lock_guard<std::mutex> lock(mutex_);
  return drafter.draft(calls, head);
}

std::vector<Tree> Engine::draft_trees(Drafter& drafter, const std::vector<TreeCall>& calls,
                                      const DraftHead* head) {
  check(head);
  Work work;
  for (const TreeCall& call : calls) work.push_back({call.sequence, {}});
  check(work);
  check(drafter);
  const std::lock_guard<std::mutex> lock(mutex_);
  return drafter.draft_trees(calls, head, head_);
}

void Engine::check(const Drafter& drafter) const {
  if (drafter.model() != &config_)
    throw ConfigurationError("a drafter of another model; make drafters with this backend's drafter()");
}

void Engine::check(const DraftHead* head) const {
  if (head != nullptr && head->model() != &config_)
    throw ConfigurationError(
        "a draft head of another model; make draft heads with this backend's draft_head()");
}

}  // namespace specee
