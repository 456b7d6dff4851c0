#include "cpu/ngrams.h"

#include <algorithm>
#include <string>

#include "specee/errors.h"

namespace specee {

NgramIndex::NgramIndex(int longest, int shortest)
    : longest_(static_cast<size_t>(longest)), shortest_(static_cast<size_t>(shortest)) {
  if (shortest < 1 || longest < shortest)
    throw RowError("n-grams of " + std::to_string(longest) + " to " + std::to_string(shortest) +
                   " tokens: the longest has as many as the shortest or more, which has 1 or more");
}

Copy NgramIndex::lookup(const Sequence& sequence, int length) {
  update(sequence);
  for (size_t size = std::min(longest_, text_.size()); size >= shortest_; --size) {
    const auto at = found_.find(text_.substr(text_.size() - size));
    if (at != found_.end()) return copy(at->second, length);
  }
  return {};
}

void NgramIndex::update(const Sequence& sequence) {
  const size_t length = static_cast<size_t>(sequence.length());
  const size_t known = text_.size();
  const bool other = known > 0 && known <= length &&
                     static_cast<char32_t>(sequence.row(static_cast<int>(known) - 1).token) != text_.back();
  if (length < known || other) {
    text_.clear();
    found_.clear();
  }
  for (size_t at = text_.size(); at < length; ++at) {
    text_.push_back(static_cast<char32_t>(sequence.row(static_cast<int>(at)).token));
    learn(at);
  }
}

void NgramIndex::learn(size_t end) {
  for (size_t size = shortest_; size <= std::min(longest_, end); ++size) {
    Found& found = found_[text_.substr(end - size, size)];
    const bool same = found.count > 0 && text_[found.end] == text_[end];
    found = {end, same ? found.count + 1 : 1};
  }
}

// A copy that reaches the end of the text goes on with what it has copied, as repetition does.
Copy NgramIndex::copy(const Found& found, int length) const {
  Copy made;
  const size_t period = text_.size() - found.end;
  for (size_t i = 0; i < static_cast<size_t>(length); ++i)
    made.tokens.push_back(static_cast<int>(text_[found.end + i % period]));
  made.confidence = static_cast<float>(found.count + 1) / static_cast<float>(found.count + 2);
  return made;
}

}  // namespace specee
