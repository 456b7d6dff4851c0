// Which of two tokens comes first.
#pragma once

namespace specee {

struct Scored {
  float value;
  int token;
};

// The lower id first among equals.
inline bool better(const Scored& a, const Scored& b) {
  return a.value > b.value || (a.value == b.value && a.token < b.token);
}

}  // namespace specee
