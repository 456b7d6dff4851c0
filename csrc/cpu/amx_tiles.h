// The tile registers of AMX: eight of them, each up to 16 rows of 64 bytes, shaped by one configuration.
#pragma once

#include <cstddef>
#include <cstdint>

namespace {

inline constexpr int kTileHeight = 16;

// What LDTILECFG reads.
struct TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, int tile_rows, int row_bytes) {
    bytes[tile] = static_cast<uint16_t>(row_bytes);
    rows[tile] = static_cast<uint8_t>(tile_rows);
  }
};
static_assert(sizeof(TileShapes) == 64);

// Nothing that might use tiles may be called from the one to the other. They are given back as a processor
// saves and restores nothing for those that are not in use. (Not a destructor's work: an object of an
// instruction set would have a reference to the exceptions' library in it, for all to link.)
inline void use_tiles(const TileShapes& shapes) { __asm__ volatile("ldtilecfg %0" : : "m"(shapes)); }
inline void release_tiles() { __asm__ volatile("tilerelease"); }

// As assembly: a tile's number is part of the instruction, and the compilers' intrinsics, macros in GCC, take
// no template's argument for one. Volatile, so that all of these stay in order; tiles cannot be named as
// changed, and no compiler uses them on its own.
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
