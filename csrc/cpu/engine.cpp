#include "cpu/engine.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "cpu/isa.h"
#include "specee/errors.h"

namespace specee {

Engine::Engine(const ModelConfig& config, Dtype format, const std::string& isa, int threads)
    : config_(config),
      kernels_(select_kernels(isa)),
      pool_(threads),
      weights_(config_, format),
      forward_(config_, weights_, kernels_, pool_),
      head_(config_, weights_, kernels_, pool_) {}

std::unique_ptr<Sequence> Engine::sequence(int capacity, Dtype dtype, bool poison) {
  if (capacity < 1 || capacity > config_.max_position)
    throw CapacityError("a sequence of " + std::to_string(capacity) +
                        " positions does not fit this model: 1 to " + std::to_string(config_.max_position) +
                        " are possible");
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
      throw RowError("a sequence of another model; make sequences with this backend's sequence()");
    if (!seen.insert(item.sequence).second)
      throw RowError("a sequence appears twice in one call; name all its rows in one entry");
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
    std::vector<int> slots;
    std::vector<char> seen(static_cast<size_t>(item.sequence->capacity()), 0);
    for (const int named : item.slots)
      for (int slot = named; slot >= 0 && !seen[static_cast<size_t>(slot)];) {
        const Row& row = item.sequence->row(slot);
        if (row.done >= to_layer) break;  // so are all rows before it
        seen[static_cast<size_t>(slot)] = 1;
        slots.push_back(slot);
        slot = row.parent;
      }
    std::stable_sort(slots.begin(), slots.end(), [&](int a, int b) {
      return item.sequence->row(a).position < item.sequence->row(b).position;
    });
    for (const int slot : slots) members.push_back({item.sequence, slot});
  }
  return members;
}

void Engine::advance(const Work& work, int to_layer, const std::function<void()>& between) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (to_layer < 1 || to_layer > config_.num_layers)
    throw RowError("cannot advance to layer " + std::to_string(to_layer) + ": 1 to " +
                   std::to_string(config_.num_layers) + " layers can be done");
  check(work);
  for (const WorkItem& item : work) item.sequence->release_hidden(item.slots);
  const std::vector<Member> members = closure(work, to_layer);
  for (size_t begin = 0; begin < members.size(); begin += kMaxRows) {
    if (begin > 0) {
      // Rows that only came along keep no hidden state once they are complete.
      for (const WorkItem& item : work) item.sequence->release_hidden(item.slots);
      between();
    }
    const size_t end = std::min(members.size(), begin + kMaxRows);
    advance_block({members.begin() + static_cast<std::ptrdiff_t>(begin),
                   members.begin() + static_cast<std::ptrdiff_t>(end)},
                  to_layer);
  }
  for (const WorkItem& item : work) item.sequence->release_hidden(item.slots);
}

void Engine::advance_block(const std::vector<Member>& members, int to_layer) {
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
    pass.path = member.sequence->path(member.slot);
    // Drafts of a chain sit where they will be committed: no gathering.
    bool in_place = true;
    for (size_t i = 0; i < pass.path.size(); ++i)
      in_place &= pass.path[i] == pass.identity + static_cast<int>(i);
    if (in_place) pass.path.clear();
    rows.push_back(std::move(pass));
  }
  forward_.run(rows, to_layer);
  for (const Member& member : order) member.sequence->note_done(member.slot, to_layer);
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
        throw RowError(
            "the hidden state of slot " + std::to_string(slot) +
            " was let go: complete rows keep it only if their sequence's latest advance named them");
      pointers.push_back(row.hidden.get());
    }
  return pointers;
}

void Engine::hidden(const Work& work, float* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const float* state : states(work)) {
    std::memcpy(out, state, static_cast<size_t>(config_.hidden_size) * sizeof(float));
    out += config_.hidden_size;
  }
}

void Engine::logits(const Work& work, float* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  head_.logits(states(work), out);
}

void Engine::argmax(const Work& work, int64_t* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  head_.argmax(states(work), out);
}

void Engine::topk(const Work& work, int k, int64_t* ids, float* values) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (k < 1 || k > config_.vocab_size)
    throw RowError("top-k of " + std::to_string(k) + " tokens: 1 to " + std::to_string(config_.vocab_size) +
                   " are possible");
  head_.topk(states(work), k, ids, values);
}

void Engine::sample(const Work& work, const std::vector<Sampling>& sampling, int64_t* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::vector<const float*> pointers = states(work);
  if (sampling.size() != pointers.size())
    throw RowError("got " + std::to_string(sampling.size()) + " Sampling for " +
                   std::to_string(pointers.size()) + " rows; give one a row");
  std::vector<uint64_t> positions;
  for (const WorkItem& item : work)
    for (const int slot : item.slots)
      positions.push_back(static_cast<uint64_t>(item.sequence->row(slot).position) + 1);
  head_.sample(pointers, sampling, positions, out);
}

}  // namespace specee
