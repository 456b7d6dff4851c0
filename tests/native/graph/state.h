// What the fake driver remembers, and how a call of it begins.
#pragma once

#include <sstream>

#include "objects.h"

#define FAKE extern "C" __attribute__((visibility("default")))

namespace fake {

inline constexpr Status kInvalidValue = 1, kNoContext = 201, kNotFound = 500;

struct State {
  int version = 12040;
  int64_t calls = 0, fail_at = 0;
  Status failure = 0;
  int ids = 0;
  std::ostringstream log;
  std::map<FakeModule*, std::unique_ptr<FakeModule>> modules;
  std::map<FakeGraph*, std::unique_ptr<FakeGraph>> graphs;  // bodies are their parents'
  std::set<FakeGraph*> bodies;
  std::map<FakeExecutable*, std::unique_ptr<FakeExecutable>> executables;
  native::Random random{1};
  std::string text;  // what was last asked for
};
inline State& state() {
  static State one;
  return one;
}

// Counts a call and writes it down; its status if it is to fail.
template <class... Parts>
Status enter(const char* name, const Parts&... parts) {
  State& now = state();
  now.log << name;
  ((now.log << ' ' << parts), ...);
  const bool fails = ++now.calls == now.fail_at;
  now.log << (fails ? " FAILS\n" : "\n");
  return fails ? now.failure : 0;
}

inline Status misuse(const std::string& why) {
  state().log << "misuse: " << why << '\n';
  return kInvalidValue;
}

template <class To, class From>
To as(From* pointer) {
  return reinterpret_cast<To>(pointer);
}

inline Context context() { return as<Context>(&state()); }

// A thread has none until it is given one; fake_reset gives it to its own.
inline Context& current() {
  static thread_local Context own = nullptr;
  return own;
}
inline Status needs_context() { return current() != nullptr ? 0 : kNoContext; }

inline FakeGraph* graph_of(Graph graph) {
  auto* found = as<FakeGraph*>(graph);
  return state().graphs.count(found) != 0 || state().bodies.count(found) != 0 ? found : nullptr;
}

inline int id_of(Graph graph) {
  const FakeGraph* found = graph_of(graph);
  return found != nullptr ? found->id : -1;
}

inline const Kernel* kernel_of(Function function) {
  for (const auto& [module, owner] : state().modules)
    for (const auto& [name, kernel] : module->kernels)
      if (as<Function>(kernel.get()) == function) return kernel.get();
  return nullptr;
}

}  // namespace fake
