// Sequences under arbitrary interleavings of the verbs, against a naive model: a list of rows with parents.
// What the engine computes for a row, and what it keeps of its layers, must have the bits of plain decoding
// of that row's text in a sequence of its own.
#include <algorithm>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "cpu/engine.h"
#include "specee/errors.h"
#include "tests.h"
#include "tiny_engine.h"

namespace native {
namespace {

using specee::Engine;
using specee::RowError;
using specee::Sequence;

constexpr int kCapacity = 24;

struct Naive {
  struct Node {
    int token, parent, position, done;  // parent: slot
    bool hidden;                        // whether its hidden state is readable
    bool kept = false;                  // whether its states behind the layers to keep are
  };
  std::map<int, Node> rows;  // by slot
  int length = 0;
  std::vector<int> layers;  // to keep
  int positions = 0;

  int used() const { return static_cast<int>(rows.size()); }
  std::vector<int> speculative() const {
    std::vector<int> slots;
    for (const auto& [slot, node] : rows)
      if (slot >= length) slots.push_back(slot);
    std::stable_sort(slots.begin(), slots.end(),
                     [this](int a, int b) { return rows.at(a).position < rows.at(b).position; });
    return slots;
  }
  std::vector<int> text(int slot) const {  // tokens up to and with the row
    std::vector<int> tokens;
    for (int at = slot; at >= 0; at = rows.at(at).parent) tokens.push_back(rows.at(at).token);
    return {tokens.rbegin(), tokens.rend()};
  }
  bool descends(int slot, const std::vector<int>& from) const {
    for (int at = slot; at >= length; at = rows.at(at).parent)
      if (std::find(from.begin(), from.end(), at) != from.end()) return true;
    return false;
  }
  // Hidden states of complete committed rows are kept for the rows named here only, if they are still there.
  void advance(const std::vector<int>& named, int layer, int num_layers) {
    for (const int slot : named)
      for (int at = slot; at >= 0 && rows.at(at).done < layer; at = rows.at(at).parent) {
        rows.at(at).kept |= rows.at(at).done == 0 && !layers.empty();
        rows.at(at).done = layer;
        rows.at(at).hidden = true;
      }
    for (auto& [slot, node] : rows)
      if (slot < length && node.done == num_layers &&
          std::find(named.begin(), named.end(), slot) == named.end())
        node.hidden = false;
    retire(num_layers);
  }
  int complete(int num_layers) const {
    int count = 0;
    while (count < length && rows.at(count).done == num_layers) ++count;
    return count;
  }
  void retire(int num_layers) {
    for (int slot = complete(num_layers) - positions - 1; slot >= 0; --slot) rows.at(slot).kept = false;
  }
  int kept(int num_layers) const {
    int slot = complete(num_layers), count = 0;
    while (count < slot && rows.at(slot - 1 - count).kept) ++count;
    return count;
  }
  void keep(std::vector<int> named, int most) {
    layers = std::move(named);
    positions = most;
    for (auto& [slot, node] : rows) node.kept = false;
  }
  void commit(const std::vector<int>& path) {
    std::vector<Node> kept;
    for (const int slot : path) kept.push_back(rows.at(slot));
    for (const int slot : speculative()) rows.erase(slot);
    for (Node& node : kept) {
      node.parent = length - 1;
      rows[length++] = node;
    }
  }
  void rollback(int n) {
    commit({});
    for (; n > 0; --n) rows.erase(--length);
  }
};

class Fuzz {
 public:
  Fuzz(Engine& engine, Engine& plain, specee::Dtype cache, Random& random)
      : engine_(engine),
        plain_(plain),
        cache_(cache),
        random_(random),
        real_(engine.sequence(kCapacity, cache, true)) {}

  void step() {
    switch (random_.between(0, 11)) {
      case 0:
        append();
        break;
      case 1:
      case 2:
        branch();
        break;
      case 3:
        prune();
        break;
      case 4:
        commit();
        break;
      case 5:
        rollback();
        break;
      case 6:
        refuse();
        break;
      case 7:
        if (random_.chance(30)) keep();
        break;
      default:
        advance();
    }
    compare_rows();
  }

 private:
  std::vector<int> tokens(int count) {
    std::vector<int> made;
    for (int i = 0; i < count; ++i) made.push_back(random_.between(0, engine_.config().vocab_size - 1));
    return made;
  }
  int room() const { return kCapacity - naive_.used(); }

  void append() {
    if (!naive_.speculative().empty()) commit();
    const std::vector<int> more = tokens(random_.between(0, std::min(5, room())));
    CHECK(real_->append(more) == naive_.length, "append returned another slot");
    for (const int token : more) {
      naive_.rows[naive_.length] = {token, naive_.length - 1, naive_.length, 0, false};
      ++naive_.length;
    }
  }

  void branch() {
    const std::vector<int> more = tokens(random_.between(0, std::min(5, room())));
    std::vector<int> parents;
    for (int i = 0; i < static_cast<int>(more.size()); ++i) parents.push_back(random_.between(-1, i - 1));
    const std::vector<int> live = naive_.speculative();
    const bool deep = !live.empty() && random_.chance(50);
    const int root = deep ? live[static_cast<size_t>(random_.between(0, static_cast<int>(live.size()) - 1))]
                          : naive_.length - 1;
    const std::vector<int> slots = real_->branch(more, &parents, root);
    CHECK(slots.size() == more.size(), "branch returned " + std::to_string(slots.size()) + " slots");
    for (size_t i = 0; i < slots.size(); ++i) {
      CHECK(slots[i] >= naive_.length && slots[i] < kCapacity && naive_.rows.count(slots[i]) == 0,
            "branch returned slot " + std::to_string(slots[i]));
      const int parent = parents[i] < 0 ? root : slots[static_cast<size_t>(parents[i])];
      const int position = parent < 0 ? 0 : naive_.rows.at(parent).position + 1;
      naive_.rows[slots[i]] = {more[i], parent, position, 0, false};
    }
  }

  std::vector<int> some(const std::vector<int>& from) {
    std::vector<int> chosen;
    for (const int slot : from)
      if (random_.chance(40)) chosen.push_back(slot);
    return chosen;
  }

  void prune() {
    const std::vector<int> dead = some(naive_.speculative());
    real_->prune(dead);
    std::vector<int> doomed;
    for (const int slot : naive_.speculative())
      if (naive_.descends(slot, dead)) doomed.push_back(slot);
    for (const int slot : doomed) naive_.rows.erase(slot);
  }

  void commit() {
    std::vector<int> path;
    const std::vector<int> live = naive_.speculative();
    if (!live.empty() && random_.chance(80))
      for (int at = live[static_cast<size_t>(random_.between(0, static_cast<int>(live.size()) - 1))];
           at >= naive_.length; at = naive_.rows.at(at).parent)
        path.insert(path.begin(), at);
    real_->commit(path);
    naive_.commit(path);
    naive_.retire(engine_.config().num_layers);
  }

  void rollback() {
    const int n = random_.between(0, std::min(3, naive_.length));
    real_->rollback(n);
    naive_.rollback(n);
  }

  void keep() {
    std::vector<int> layers;
    for (int layer = 1; layer <= engine_.config().num_layers; ++layer)
      if (random_.chance(60)) layers.push_back(layer);
    const int positions = random_.between(0, 8);
    real_->keep(layers, positions);
    naive_.keep(layers, positions);
  }

  // Wrong calls throw; compare_rows() then sees that nothing changed.
  void refuse() {
    CHECK_THROWS(RowError, real_->append({-1}));
    CHECK_THROWS(RowError, real_->append({engine_.config().vocab_size}));
    CHECK_THROWS(RowError, real_->rollback(naive_.length + 1));
    CHECK_THROWS(RowError, real_->prune({kCapacity}));
    CHECK_THROWS(RowError, real_->commit({naive_.length - 1}));
    CHECK_THROWS(RowError, real_->row(-1));
    CHECK_THROWS(RowError, real_->keep({0}, 3));
    CHECK_THROWS(RowError, real_->keep({engine_.config().num_layers + 1}, 3));
    CHECK_THROWS(RowError, real_->keep({1, 1}, 3));
    CHECK_THROWS(RowError, real_->keep({1}, -1));
    CHECK_THROWS(RowError, real_->kept_state(0, 0));
    CHECK_THROWS(specee::CapacityError, real_->branch(tokens(room() + 1), nullptr, naive_.length - 1));
    CHECK_THROWS(RowError, engine_.advance({{real_.get(), {}}}, engine_.config().num_layers + 1, [] {}));
    if (naive_.used() > 0) CHECK_THROWS(RowError, engine_.advance({{real_.get(), {0, 0}}}, 1, [] {}));
  }

  void advance() {
    std::vector<int> all;
    for (const auto& [slot, node] : naive_.rows) all.push_back(slot);
    const std::vector<int> named = some(all);
    const int layer = random_.between(1, engine_.config().num_layers);
    engine_.advance({{real_.get(), named}}, layer, [] {});
    naive_.advance(named, layer, engine_.config().num_layers);
    for (const int slot : named) compare_values(slot);
  }

  void compare_rows() {
    CHECK(real_->length() == naive_.length, "length is " + std::to_string(real_->length()));
    CHECK(real_->speculative() == naive_.speculative(), "other speculative rows are live");
    for (const auto& [slot, node] : naive_.rows) {
      const specee::Row& row = static_cast<const Sequence&>(*real_).row(slot);
      CHECK(row.token == node.token && row.parent == node.parent && row.position == node.position &&
                row.done == node.done,
            "slot " + std::to_string(slot) + " has another row");
    }
    std::vector<int> frontier(static_cast<size_t>(engine_.config().num_layers));
    for (int p = 0; p < naive_.length; ++p)
      for (int l = 0; l < naive_.rows.at(p).done; ++l) ++frontier[static_cast<size_t>(l)];
    CHECK(real_->frontier() == frontier, "the frontier differs");
    CHECK(real_->kept() == naive_.kept(engine_.config().num_layers),
          "states of " + std::to_string(real_->kept()) + " positions are kept");
    for (const auto& [slot, node] : naive_.rows)
      for (const int layer : naive_.layers)
        if (!node.kept || node.done < layer) CHECK_THROWS(RowError, real_->kept_state(slot, layer));
  }

  // Hidden state and cache entries of a row against plain decoding.
  void compare_values(int slot) {
    const Naive::Node& node = naive_.rows.at(slot);
    const std::vector<int> text = naive_.text(slot);
    const auto chain = plain_.sequence(kCapacity, cache_, true);
    chain->append(text);
    const int last = static_cast<int>(text.size()) - 1;
    plain_.advance({{chain.get(), {last}}}, node.done, [] {});
    const size_t width = static_cast<size_t>(engine_.config().hidden_size);
    std::vector<float> got(width), expected(width);
    plain_.hidden({{chain.get(), {last}}}, expected.data());
    if (node.hidden) {
      engine_.hidden({{real_.get(), {slot}}}, got.data());
      CHECK(std::memcmp(got.data(), expected.data(), width * sizeof(float)) == 0,
            "the hidden state of slot " + std::to_string(slot) + " after " + std::to_string(node.done) +
                " layers has other bits than plain decoding");
    } else {
      CHECK_THROWS(RowError, engine_.hidden({{real_.get(), {slot}}}, got.data()));
    }
    compare_kept(slot);
    const size_t dim = static_cast<size_t>(engine_.config().head_dim);
    std::vector<float> key(dim), value(dim), plain_key(dim), plain_value(dim);
    for (int layer = 0; layer < node.done; ++layer)
      for (int head = 0; head < engine_.config().num_kv_heads; ++head) {
        real_->cache().read(layer, head, slot, key.data(), value.data());
        chain->cache().read(layer, head, last, plain_key.data(), plain_value.data());
        CHECK(std::memcmp(key.data(), plain_key.data(), dim * sizeof(float)) == 0 &&
                  std::memcmp(value.data(), plain_value.data(), dim * sizeof(float)) == 0,
              "keys or values of slot " + std::to_string(slot) + " at layer " + std::to_string(layer) +
                  " differ");
      }
  }

  void compare_kept(int slot) {
    const Naive::Node& node = naive_.rows.at(slot);
    if (!node.kept) return;
    const auto chain = plain_.sequence(kCapacity, cache_, true);
    const int last = chain->append(naive_.text(slot)) + node.position;
    std::vector<float> expected(static_cast<size_t>(engine_.config().hidden_size));
    for (const int layer : naive_.layers) {
      if (layer > node.done) break;
      plain_.advance({{chain.get(), {last}}}, layer, [] {});
      plain_.hidden({{chain.get(), {last}}}, expected.data());
      CHECK(
          std::memcmp(real_->kept_state(slot, layer), expected.data(), expected.size() * sizeof(float)) == 0,
          "the state of slot " + std::to_string(slot) + " kept behind layer " + std::to_string(layer) +
              " has other bits than plain decoding");
    }
  }

  Engine& engine_;
  Engine& plain_;
  specee::Dtype cache_;
  Random& random_;
  std::unique_ptr<Sequence> real_;
  Naive naive_;
};

}  // namespace

void test_sequences(const std::string& isa, Random& random) {
  const specee::ModelConfig config = tiny_config(random);
  const specee::WeightTypes types = tiny_types(config, random);
  const specee::Dtype cache = static_cast<specee::Dtype>(random.between(0, 2));
  const uint64_t weights = random.bits();
  const auto engine =
      tiny_engine(config, types, isa, random.between(1, std::min(3, current().threads)), weights);
  const auto plain = tiny_engine(config, types, isa, 1, weights);
  Fuzz fuzz(*engine, *plain, cache, random);
  for (int i = 0; i < 40; ++i) fuzz.step();
}

}  // namespace native
