// Where each n-gram of a growing text occurred last, and what followed it: drafts without a model.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "cpu/sequence.h"

namespace specee {

// Tokens that may come next, and how likely the first of them is; none if nothing was found.
struct Copy {
  std::vector<int> tokens;
  float confidence = 0.0f;
};

// Of one text. See NgramIndex in specee/ngrams.py, which is the reference.
class NgramIndex {
 public:
  // The suffix of `longest` to `shortest` tokens that is looked up. Throws RowError.
  NgramIndex(int longest, int shortest);

  // Up to `length` tokens that may follow the committed text of `sequence`; what was added to it since the
  // latest call is learnt first. A text that does not go on from there is learnt anew: one that is shorter,
  // or has another token at the last place that was known.
  Copy lookup(const Sequence& sequence, int length);

 private:
  struct Found {
    size_t end = 0;  // where the n-gram ends: its successor's place
    int count = 0;   // times in a row that the same token followed
  };

  void update(const Sequence& sequence);
  void learn(size_t end);  // n-grams that end before `end`, where their successor is
  Copy copy(const Found& found, int length) const;

  size_t longest_, shortest_;
  std::u32string text_;  // strings of code units hash and compare as they are
  std::unordered_map<std::u32string, Found> found_;
};

}  // namespace specee
