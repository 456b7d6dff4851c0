// A loop whose steps are constants.
#pragma once

namespace {

// f(integral constant) for 0 .. Count - 1.
template <int I>
struct Step {
  static constexpr int value = I;
};
template <int Count, int I = 0, class Function>
inline void each_step(const Function& f) {
  if constexpr (I < Count) {
    f(Step<I>());
    each_step<Count, I + 1>(f);
  }
}

}  // namespace
