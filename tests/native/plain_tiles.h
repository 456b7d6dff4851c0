// The tiles of csrc/cpu/amx_tiles.h in plain C++, for processors that have none and for sanitizers, which see
// what these read and write.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "check.h"
#include "specee/numerics.h"

namespace {

inline constexpr int kTileHeight = 16, kTileWidth = 64;

struct PlainTile {
  int rows = 0, bytes = 0;  // none until there are shapes
  char data[kTileHeight][kTileWidth];
};
inline PlainTile* plain_tiles() {
  static thread_local PlainTile tiles[8];
  return tiles;
}
inline PlainTile& plain_tile(int tile) {
  CHECK(plain_tiles()[tile].rows > 0, "tile " + std::to_string(tile) + " has no shape");
  return plain_tiles()[tile];
}

class TileShapes {
 public:
  void set(int tile, int rows, int bytes) {
    CHECK(rows > 0 && rows <= kTileHeight, std::to_string(rows) + " rows");
    CHECK(bytes > 0 && bytes <= kTileWidth && bytes % 4 == 0, std::to_string(bytes) + " bytes");
    rows_[tile] = rows;
    bytes_[tile] = bytes;
  }
  int rows(int tile) const { return rows_[tile]; }
  int bytes(int tile) const { return bytes_[tile]; }

 private:
  int rows_[8] = {}, bytes_[8] = {};
};

inline void use_tiles(const TileShapes& shapes) {
  for (int tile = 0; tile < 8; ++tile) {
    PlainTile& own = plain_tiles()[tile];
    own.rows = shapes.rows(tile);
    own.bytes = shapes.bytes(tile);
    std::memset(own.data, 0x7f, sizeof own.data);  // a huge number, to whoever does not load or zero it
  }
}
inline void release_tiles() { use_tiles({}); }

template <int Tile>
inline void tile_load(const void* first, ptrdiff_t stride) {
  PlainTile& tile = plain_tile(Tile);
  for (int r = 0; r < tile.rows; ++r)
    std::memcpy(tile.data[r], static_cast<const char*>(first) + r * stride, static_cast<size_t>(tile.bytes));
}
template <int Tile>
inline void tile_store(void* first, ptrdiff_t stride) {
  const PlainTile& tile = plain_tile(Tile);
  for (int r = 0; r < tile.rows; ++r)
    std::memcpy(static_cast<char*>(first) + r * stride, tile.data[r], static_cast<size_t>(tile.bytes));
}
template <int Tile>
inline void tile_zero() {
  std::memset(plain_tile(Tile).data, 0, sizeof(PlainTile::data));
}

// Denormals are zero, going in and coming out.
inline float flushed(float value) {
  return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value;
}
inline float plain_bf16(const PlainTile& tile, int row, int index) {
  uint16_t bits;
  std::memcpy(&bits, tile.data[row] + 2 * index, sizeof bits);
  return flushed(specee::bf16_to_float(bits));
}
// As Intel describes TDPBF16PS: even and odd k are chains of fused multiply-adds of their own, which are
// added up and then to the sum.
template <int Sums, int Rows, int Columns>
inline void tile_dot_bf16() {
  static_assert(Sums != Rows && Rows != Columns && Sums != Columns, "an instruction takes three tiles");
  PlainTile& sums = plain_tile(Sums);
  const PlainTile &rows = plain_tile(Rows), &columns = plain_tile(Columns);
  CHECK(rows.rows == sums.rows && columns.bytes == sums.bytes && columns.rows * 4 == rows.bytes,
        "shapes that do not go together");
  for (int r = 0; r < sums.rows; ++r)
    for (int c = 0; c < sums.bytes / 4; ++c) {
      float chain[2] = {};
      for (int k = 0; k < columns.rows; ++k)
        for (int half = 0; half < 2; ++half)
          chain[half] = flushed(
              std::fma(plain_bf16(rows, r, 2 * k + half), plain_bf16(columns, k, 2 * c + half), chain[half]));
      float sum;
      std::memcpy(&sum, sums.data[r] + 4 * c, sizeof sum);
      sum = flushed(flushed(sum) + flushed(chain[0] + chain[1]));
      std::memcpy(sums.data[r] + 4 * c, &sum, sizeof sum);
    }
}

}  // namespace
