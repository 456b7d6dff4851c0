#include "soak_client.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "specee/errors.h"

namespace native {

using specee::CapacityError;
using specee::Engine;
using specee::RowError;
using specee::Sequence;
using specee::Work;

namespace {

struct Interrupt {};
struct CallbackError {};

void nothing() {}

}  // namespace

SoakClient::SoakClient(Engine& engine, std::unique_ptr<Sequence> stranger, Locks& locks,
                       std::vector<SoakRequest> requests)
    : engine_(engine), stranger_(std::move(stranger)), locks_(locks), requests_(std::move(requests)) {}

bool SoakClient::Active::over() const {
  return static_cast<int>(tokens.size()) >= text->most || (!tokens.empty() && tokens.back() == text->end);
}

bool SoakClient::over() const {
  return std::all_of(active_.begin(), active_.end(), [](const Active& active) { return active.over(); });
}

void SoakClient::run() {
  for (const SoakRequest& request : requests_) {
    begin(request);
    if (answered(request)) compare();
    end();
  }
}

void SoakClient::begin(const SoakRequest& request) {
  for (const SoakText& text : request.texts) active_.push_back({&text, soak_sequence(engine_, text), {}});
  const auto held = locks_.interpreter();
  shown_ = active_.front().sequence.get();
}

void SoakClient::end() {
  const auto held = locks_.interpreter();
  shown_ = nullptr;
  active_.clear();
}

bool SoakClient::answered(const SoakRequest& request) {
  Random random(request.seed);
  for (int count = 0; !over(); ++count) {
    touch_neighbour();
    const bool mishap = request.mishap != Mishap::none && count == request.when;
    try {
      step(request, mishap, random);
      continue;
    } catch (const Interrupt&) {
    } catch (const CallbackError&) {
    }
    if (request.mishap == Mishap::abandoned) return false;  // drafts and all
    settle();
  }
  return true;
}

// A step that did not come to its end leaves the text as it was.
void SoakClient::settle() {
  const auto held = locks_.interpreter();
  for (Active& active : active_) active.sequence->commit({});
}

void SoakClient::compare() {
  for (Active& active : active_) {
    const SoakAnswer& expected = active.text->expected;
    CHECK(active.tokens == expected.tokens, "a text goes on otherwise than by itself");
    std::vector<float> state;
    locks_.call({{active.sequence.get(), {}}}, [&] { state = newest_state(engine_, *active.sequence); });
    CHECK(std::memcmp(state.data(), expected.hidden.data(), state.size() * sizeof(float)) == 0,
          "the state after the last token has other bits than by itself");
  }
}

void SoakClient::step(const SoakRequest& request, bool mishap, Random& random) {
  const auto held = locks_.step();
  const int layers = engine_.config().num_layers;
  for (Active& active : active_) {
    if (active.over()) continue;
    if (request.drafts == Drafts::tree) draft_tree(active, random);
    if (request.drafts == Drafts::exit_layer && layers > 1)
      draft_at(random.between(1, layers - 1), active, random);
  }
  if (mishap) ++counts_[static_cast<size_t>(request.mishap)];
  if (mishap && request.mishap == Mishap::bad_input) refuse(active_.back(), random);
  if (mishap && (request.mishap == Mishap::callback || request.mishap == Mishap::abandoned))
    throw CallbackError{};
  verify(mishap && request.mishap == Mishap::interrupted);
}

void SoakClient::draft_at(int layer, Active& active, Random& random) {
  int tip = active.newest();
  for (int count = random.between(0, kSoakDrafts); count > 0; --count) {
    const Work work = {{active.sequence.get(), {tip}}};
    int64_t token = -1;
    float confidence = 0.0f;
    locks_.call(work, [&] { engine_.advance(work, layer, [this] { between(false); }); });
    locks_.call(work, [&] { engine_.draft(work, {active.text->sampling}, nullptr, &token, &confidence); });
    const auto held = locks_.interpreter();
    tip = active.sequence->branch({static_cast<int>(token)}, nullptr, tip).front();
  }
}

// Nodes below any others, every second one with the token that its text will go on with.
void SoakClient::draft_tree(Active& active, Random& random) {
  const auto held = locks_.interpreter();
  const std::vector<int>& right = active.text->expected.tokens;
  std::vector<std::pair<int, size_t>> nodes = {{active.newest(), active.tokens.size()}};
  for (int count = random.between(0, kSoakDrafts); count > 0; --count) {
    const auto [slot, at] = nodes[static_cast<size_t>(random.between(0, static_cast<int>(nodes.size()) - 1))];
    const int any = random.between(0, engine_.config().vocab_size - 1);
    const int token = at < right.size() && random.chance(50) ? right[at] : any;
    nodes.emplace_back(active.sequence->branch({token}, nullptr, slot).front(), at + 1);
  }
}

void SoakClient::verify(bool interrupt) {
  Work work;
  std::vector<specee::Sampling> sampling;
  {
    const auto held = locks_.interpreter();
    for (const Active& active : active_) {
      if (active.over()) continue;
      std::vector<int> slots = active.sequence->speculative();
      slots.insert(slots.begin(), active.newest());
      sampling.insert(sampling.end(), slots.size(), active.text->sampling);
      work.push_back({active.sequence.get(), std::move(slots)});
    }
  }
  std::vector<int64_t> targets(sampling.size());
  locks_.call(work, [&] {
    engine_.verify(work, &sampling, [this, interrupt] { between(interrupt); }, targets.data());
  });
  const auto held = locks_.interpreter();
  size_t item = 0;
  const int64_t* own = targets.data();
  for (Active& active : active_) {
    if (active.over()) continue;
    const std::vector<int>& slots = work[item++].slots;
    accept(active, slots, own);
    own += slots.size();
  }
}

// What Python does between passes: signal handlers, which find the rows in use, and other threads.
void SoakClient::between(bool interrupt) {
  {
    const auto held = locks_.interpreter();
    const bool used = std::any_of(active_.begin(), active_.end(),
                                  [](const Active& active) { return active.sequence->busy(); });
    CHECK(used, "no sequence is in use in the middle of a call");
  }
  touch_neighbour();
  if (interrupt) throw Interrupt{};
}

// Down the tree as long as a child has the token that the full model gives its parent.
void SoakClient::accept(Active& active, const std::vector<int>& slots, const int64_t* targets) {
  const Sequence& sequence = *active.sequence;
  std::vector<int> path;
  size_t at = 0;
  while (at < slots.size()) {
    const int token = static_cast<int>(targets[at]);
    active.tokens.push_back(token);
    if (active.over()) break;
    const int parent = slots[at];
    for (at = 1; at < slots.size(); ++at)
      if (sequence.row(slots[at]).parent == parent && sequence.row(slots[at]).token == token) break;
    if (at < slots.size()) path.push_back(slots[at]);
  }
  accepted_ += static_cast<int>(path.size());
  active.sequence->commit(path);
  active.sequence->append({active.tokens.back()});
}

// One call that cannot be: it gets its own error, and the text goes on as if it had not been made.
void SoakClient::refuse(Active& active, Random& random) {
  Sequence& sequence = *active.sequence;
  const specee::ModelConfig& config = engine_.config();
  const int newest = active.newest(), capacity = sequence.capacity();
  const auto advance = [&](const Work& work, int layer) {
    locks_.call(work, [&] { engine_.advance(work, layer, nothing); });
  };
  switch (random.between(0, 8)) {
    case 0:
      CHECK_THROWS(CapacityError, engine_.sequence(config.max_position + 1, specee::Dtype::f32, false));
      break;
    case 1:
      CHECK_THROWS(CapacityError, engine_.sequence(0, specee::Dtype::f32, false));
      break;
    case 2:
      CHECK_THROWS(RowError, advance({{&sequence, {newest}}}, config.num_layers + 1));
      break;
    case 3:
      CHECK_THROWS(RowError, advance({{&sequence, {newest, newest}}}, 1));
      break;
    case 4:
      CHECK_THROWS(RowError, advance({{&sequence, {newest}}, {&sequence, {newest}}}, 1));
      break;
    case 5:
      CHECK_THROWS(RowError, advance({{stranger_.get(), {0}}}, 1));
      break;
    case 6:
      CHECK_THROWS(RowError, engine_.check_topk(config.vocab_size + 1));
      break;
    default: {
      const auto held = locks_.interpreter();
      CHECK_THROWS(RowError, sequence.append({config.vocab_size}));
      CHECK_THROWS(RowError, sequence.rollback(sequence.length() + 1));
      CHECK_THROWS(RowError, sequence.prune({capacity}));
      const std::vector<int> many(static_cast<size_t>(capacity), 0);
      CHECK_THROWS(CapacityError, sequence.branch(many, nullptr, newest));
    }
  }
}

// Another thread's rows, at any moment: in use, or as a step has left them.
void SoakClient::touch_neighbour() {
  const auto held = locks_.interpreter();
  if (neighbour_ == nullptr || !locks_.python() || neighbour_->shown_ == nullptr) return;
  try {
    specee::require_free(*neighbour_->shown_);
    const std::vector<int> frontier = neighbour_->shown_->frontier();
    CHECK(std::is_sorted(frontier.rbegin(), frontier.rend()), "a frontier grows with depth");
  } catch (const RowError&) {  // it is in use
  }
}

}  // namespace native
