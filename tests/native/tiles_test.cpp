// specee/tiles.h: every weight has a place of its own, and it is the one that matrix instructions expect.
#include "specee/tiles.h"

#include <vector>

#include "tests.h"

namespace native {
namespace {

std::string at(int output, int k) { return "output " + std::to_string(output) + ", k " + std::to_string(k); }

// Fragment a of mma.m16n8k32 (PTX manual): register r of a lane has row lane / 4, 8 further down if r is odd,
// and columns 4 (lane % 4) to + 3, 16 further on from r = 2.
void check_place(int output, int k) {
  const specee::PackedPlace place = specee::packed_place(output, k);
  CHECK(place.lane >= 0 && place.lane < 32 && place.word >= 0 && place.word < 4, at(output, k));
  CHECK(place.lane / 4 + place.word % 2 * 8 == output % 16, at(output, k));
  CHECK(place.lane % 4 * 4 + place.word / 2 * 16 + place.byte == k % 32, at(output, k));
}

// Counts what is stored in each byte, half a byte or scale; a matrix is full when each has been counted once.
class Places {
 public:
  explicit Places(int64_t size) : used_(static_cast<size_t>(size), 0) {}
  void take(int64_t place, const std::string& where) {
    CHECK(place >= 0 && place < static_cast<int64_t>(used_.size()), where);
    CHECK(++used_[static_cast<size_t>(place)] == 1, where + " shares its place");
  }

 private:
  std::vector<int> used_;
};

void check_packed(int tiles, int units) {
  const int outputs = tiles * specee::kTileOutputs, columns = units * specee::kTileUnit;
  const int64_t weights = static_cast<int64_t>(outputs) * columns;
  Places bytes(weights), nibbles(weights), scales(weights / specee::kTileUnit),
      pairs(weights / specee::kTileUnit * 2);
  for (int output = 0; output < outputs; ++output)
    for (int k = 0; k < columns; ++k) {
      check_place(output, k);
      bytes.take(specee::int8_offset(output, k, units), at(output, k));
      const specee::Nibble nibble = specee::int4_offset(output, k, units);
      CHECK(nibble.shift == 0 || nibble.shift == 4, at(output, k));
      nibbles.take(2 * nibble.byte + nibble.shift / 4, at(output, k));
      // As the kernel takes a lane's two words apart.
      const specee::PackedPlace place = specee::packed_place(output, k);
      CHECK(nibble.byte % 8 / 4 * 2 + nibble.shift / 4 == place.word, at(output, k));
      if (k % specee::kTileUnit != 0) continue;
      scales.take(specee::int8_scale_offset(output, k, units), at(output, k));
      const int64_t scale = specee::int4_scale_offset(output, k, units);
      pairs.take(scale, at(output, k));
      pairs.take(scale + specee::kTileOutputs, at(output, k));
    }
}

void check_splits(Random& random) {
  const int begin = random.between(0, 2000), end = begin + random.between(1, 2000);
  const int splits = specee::attention_splits(end + random.between(0, 600));
  for (int split = 0; split < splits; ++split) {
    const int first = split * specee::kAttentionSplit;
    bool any = false;
    for (int position = first; position < first + specee::kAttentionSplit; ++position)
      any = any || (position >= begin && position < end);
    const std::string where =
        "[" + std::to_string(begin) + ", " + std::to_string(end) + "), split " + std::to_string(split);
    CHECK(specee::attends(split, begin, end) == any, where);
    // What the second stage adds up is what the first has written.
    CHECK(any == (split >= begin / specee::kAttentionSplit && split < specee::attention_splits(end)), where);
  }
  const int vocab = random.between(1, 300000), pieces = specee::vocab_splits(vocab);
  CHECK(pieces * specee::kVocabSplit >= vocab && (pieces - 1) * specee::kVocabSplit < vocab,
        std::to_string(vocab));
}

}  // namespace

void test_tiles(Random& random) {
  check_packed(random.between(1, 3), random.between(1, 5));
  for (int i = 0; i < 10; ++i) check_splits(random);
  for (int rows = 1; rows <= specee::kMaxLinearRows; ++rows) {
    const int tiles = specee::row_tiles(rows);
    CHECK(tiles == 1 || tiles == 2 || tiles == 4 || tiles == 8, std::to_string(rows));
    CHECK(tiles * specee::kTileRows >= rows, std::to_string(rows));
    CHECK(tiles == 1 || tiles / 2 * specee::kTileRows < rows, std::to_string(rows));
  }
}

}  // namespace native
