// The tile registers of AMX: eight of them, each up to 16 rows of 64 bytes, shaped by one configuration.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace {

inline constexpr int kTileHeight = 16;

// What LDTILECFG reads.
class TileShapes {
 public:
  void set(int tile, int rows, int bytes) {
    bytes_[tile] = static_cast<uint16_t>(bytes);
    rows_[tile] = static_cast<uint8_t>(rows);
  }

 private:
  uint8_t palette_ = 1, start_ = 0, reserved_[14] = {};
  uint16_t bytes_[16] = {};
  uint8_t rows_[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

// Tiles in use; given back in the end, as a processor saves and restores nothing for those that are not.
class UsedTiles {
 public:
  UsedTiles() = default;
  UsedTiles(const UsedTiles&) = delete;
  UsedTiles& operator=(const UsedTiles&) = delete;
  ~UsedTiles() { _tile_release(); }
  void shape(const TileShapes& shapes) { _tile_loadconfig(&shapes); }
};

// As assembly: a tile's number is part of the instruction, and the compilers' intrinsics, macros in GCC, take
// no template's argument for one.
template <int Tile>
inline void tile_load(const void* first, ptrdiff_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(first), "r"(stride), "i"(Tile) : "memory");
}
template <int Tile>
inline void tile_store(void* first, ptrdiff_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(first), "r"(stride), "i"(Tile) : "memory");
}
template <int Tile>
inline void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(Tile));
}
// sums += rows * columns, bf16, two k at a time.
template <int Sums, int Rows, int Columns>
inline void tile_dot_bf16() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sums), "i"(Rows), "i"(Columns));
}

}  // namespace
