// Where the time of a pass goes: seconds of each member in each step, and waits at barriers. Off unless asked
// for.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <vector>

namespace specee {

enum class Step { qkv, heads, attention, o, gate_up, down, head, wait };
inline constexpr int kCostSteps = 8;

class Costs {
 public:
  explicit Costs(int members) : members_(static_cast<size_t>(members)) {}

  struct Member {
    std::array<int64_t, kCostSteps> nanoseconds{};
    int64_t barriers = 0;
  };

  void enable(bool on) { on_ = on; }
  bool on() const { return on_; }
  void clear() { members_.assign(members_.size(), Member{}); }
  Member& member(int index) { return members_[static_cast<size_t>(index)]; }
  const std::vector<Member>& members() const { return members_; }

 private:
  bool on_ = false;
  std::vector<Member> members_;
};

// One member's watch: mark(step) books the time since the last mark.
class Lap {
 public:
  Lap(Costs& costs, int member) : member_(costs.on() ? &costs.member(member) : nullptr) {
    if (member_ != nullptr) last_ = now();
  }
  void mark(Step step) {
    if (member_ == nullptr) return;
    const int64_t time = now();
    member_->nanoseconds[static_cast<size_t>(step)] += time - last_;
    last_ = time;
  }
  // A barrier within a step.
  void passed() {
    if (member_ != nullptr) ++member_->barriers;
  }
  // After a barrier between steps.
  void waited() {
    passed();
    mark(Step::wait);
  }

 private:
  static int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  Costs::Member* member_;
  int64_t last_ = 0;
};

}  // namespace specee
