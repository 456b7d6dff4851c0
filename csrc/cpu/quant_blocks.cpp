#include "cpu/quant_blocks.h"

#include <cstring>

#include "cpu/kernels.h"
#include "specee/numerics.h"

namespace specee {
namespace {

constexpr int kStep = 4;                 // k of one vector
constexpr int kVector = kStep * kLanes;  // bytes
constexpr uint16_t kSignBit = 0x8000;

uint16_t read_half(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }

void nibbles_by_halves(const uint8_t* from, int count, uint8_t* values) {
  for (int i = 0; i < count; ++i) {
    values[i] = from[i] & 0x0f;
    values[i + count] = from[i] >> 4;
  }
}

// Eight six-bit scales and minimums in twelve bytes: the first four of each whole, with the upper bits of the
// last four on top.
void unpack_six_bits(const uint8_t* from, QuantBlock& b) {
  for (int j = 0; j < 4; ++j) {
    b.scales[j] = from[j] & 63;
    b.minimums[j] = from[j + 4] & 63;
    b.scales[j + 4] = static_cast<uint8_t>((from[j + 8] & 0x0f) | (from[j] >> 6) << 4);
    b.minimums[j + 4] = static_cast<uint8_t>((from[j + 8] >> 4) | (from[j + 4] >> 6) << 4);
  }
}

void unpack_q4_k(const uint8_t* source, const uint8_t* nibbles, QuantBlock& b) {
  b.scale = read_half(source);
  b.minimum = read_half(source + 2) ^ kSignBit;
  unpack_six_bits(source + 4, b);
  for (int pair = 0; pair < 4; ++pair) nibbles_by_halves(nibbles + 32 * pair, 32, b.values + 64 * pair);
}

void unpack_q6_k(const uint8_t* source, QuantBlock& b) {
  const uint8_t *low = source, *high = source + 128;
  std::memcpy(b.scales, source + 192, 16);
  b.scale = read_half(source + 208);
  for (int j = 0; j < 256; ++j) {  // half of 128, quarter of 32, place
    const int half = j / 128, quarter = j / 32 % 4, place = j % 32;
    const int nibble = low[half * 64 + quarter % 2 * 32 + place] >> (quarter / 2 * 4) & 0x0f;
    const int top = high[half * 32 + place] >> (2 * quarter) & 3;
    b.values[j] = static_cast<uint8_t>(nibble | top << 4);
  }
}

}  // namespace

void unpack_source(WeightType type, const uint8_t* source, QuantBlock& b) {
  switch (type) {
    case WeightType::q4_0:
      b.scale = read_half(source);
      nibbles_by_halves(source + 2, 16, b.values);
      break;
    case WeightType::q4_1:
      b.scale = read_half(source);
      b.minimum = read_half(source + 2);
      nibbles_by_halves(source + 4, 16, b.values);
      break;
    case WeightType::q8_0:
      b.scale = read_half(source);
      std::memcpy(b.values, source + 2, kUnit);
      break;
    case WeightType::q4_k:
      unpack_q4_k(source, source + 16, b);
      break;
    case WeightType::q5_k:
      unpack_q4_k(source, source + 48, b);
      for (int j = 0; j < 256; ++j)
        b.values[j] = static_cast<uint8_t>(b.values[j] | (source[16 + j % 32] >> (j / 32) & 1) << 4);
      break;
    case WeightType::q6_k:
      unpack_q6_k(source, b);
      break;
    default:
      break;
  }
}

namespace {

// Addresses of one checkpoint block's parts in one lane.
struct Places {
  char* header;
  char* quants;  // first unit
};

Places places(WeightType type, char* packed, int index, int lane) {
  const QuantLayout layout = quant_layout(type);
  char* header = packed + static_cast<ptrdiff_t>(index) * layout.packed_bytes();
  return {header, header + layout.header_bytes + kStep * lane};
}

bool has_minimum(WeightType type) {
  return type == WeightType::q4_1 || type == WeightType::q4_k || type == WeightType::q5_k;
}

int scale_bytes(WeightType type) {
  return type == WeightType::q6_k ? 16 : type == WeightType::q4_k || type == WeightType::q5_k ? 8 : 0;
}

// The header's fp16 entries are [16] each; the byte scales of unit u follow at 32 * u.
template <class Move>
void move_header(WeightType type, char* header, int lane, const Move& move) {
  move.half(header + 2 * lane, 0);
  if (has_minimum(type)) move.half(header + 2 * kLanes + 2 * lane, 1);
  char* bytes = header + (type == WeightType::q6_k ? 1 : 2) * 2 * kLanes + lane;
  const int per_unit = scale_bytes(type) / 8;
  for (int i = 0; i < scale_bytes(type); ++i) {
    const int unit = i / per_unit, part = i % per_unit;
    move.scale(bytes + unit * 2 * kLanes + part * kLanes, i);
    if (per_unit == 1) move.minimum(bytes + unit * 2 * kLanes + kLanes, i);
  }
}

struct StoreHeader {
  const QuantBlock& b;
  void half(char* p, int which) const { std::memcpy(p, which == 0 ? &b.scale : &b.minimum, 2); }
  void scale(char* p, int i) const { *p = static_cast<char>(b.scales[i]); }
  void minimum(char* p, int i) const { *p = static_cast<char>(b.minimums[i]); }
};

struct LoadHeader {
  QuantBlock& b;
  void half(const char* p, int which) const { std::memcpy(which == 0 ? &b.scale : &b.minimum, p, 2); }
  void scale(const char* p, int i) const { b.scales[i] = static_cast<uint8_t>(*p); }
  void minimum(const char* p, int i) const { b.minimums[i] = static_cast<uint8_t>(*p); }
};

// Bits above the nibble that one unit's weight k keeps in the planes behind the nibbles: which vector, which
// bit.
struct HighBits {
  int vector, shift, mask;
};

HighBits high_bits(WeightType type, int step) {
  if (type == WeightType::q5_k) return {4, step, 1};
  if (type == WeightType::q6_k) return {4 + step / 4, 2 * (step % 4), 3};
  return {0, 0, 0};
}

void store_unit(WeightType type, const uint8_t* values, char* quants) {
  for (int k = 0; k < kUnit; ++k) {
    const int step = k / kStep, byte = k % kStep;
    if (type == WeightType::q8_0) {
      quants[step * kVector + byte] = static_cast<char>(values[k]);
      continue;
    }
    uint8_t* pair = reinterpret_cast<uint8_t*>(quants) + step % 4 * kVector + byte;
    *pair = static_cast<uint8_t>(*pair | (values[k] & 0x0f) << (step / 4 * 4));
    const HighBits high = high_bits(type, step);
    if (high.mask == 0) continue;
    uint8_t* top = reinterpret_cast<uint8_t*>(quants) + high.vector * kVector + byte;
    *top = static_cast<uint8_t>(*top | (values[k] >> 4 & high.mask) << high.shift);
  }
}

void load_unit(WeightType type, const char* quants, uint8_t* values) {
  const uint8_t* from = reinterpret_cast<const uint8_t*>(quants);
  for (int k = 0; k < kUnit; ++k) {
    const int step = k / kStep, byte = k % kStep;
    if (type == WeightType::q8_0) {
      values[k] = from[step * kVector + byte];
      continue;
    }
    const HighBits high = high_bits(type, step);
    const int nibble = from[step % 4 * kVector + byte] >> (step / 4 * 4) & 0x0f;
    const int top = from[high.vector * kVector + byte] >> high.shift & high.mask;
    values[k] = static_cast<uint8_t>(nibble | top << 4);
  }
}

}  // namespace

bool store_source(WeightType type, const uint8_t* source, char* packed, int index, int lane) {
  if (quant_layout(type).block != kUnit) return false;
  const Places at = places(type, packed, index, lane);
  const ptrdiff_t halves = has_minimum(type) ? 2 : 1;
  for (ptrdiff_t i = 0; i < halves; ++i) std::memcpy(at.header + 2 * (kLanes * i + lane), source + 2 * i, 2);
  // Steps of four bytes; of nibbles, a byte's high one is 16 weights behind its low one in both.
  const uint8_t* quants = source + 2 * halves;
  for (ptrdiff_t step = 0; step < quant_layout(type).unit_bytes / kVector; ++step)
    std::memcpy(at.quants + step * kVector, quants + step * kStep, kStep);
  return true;
}

void store_block(WeightType type, const QuantBlock& values, char* packed, int index, int lane) {
  const Places at = places(type, packed, index, lane);
  move_header(type, at.header, lane, StoreHeader{values});
  const QuantLayout layout = quant_layout(type);
  for (int u = 0; u < layout.block / kUnit; ++u)
    store_unit(type, values.values + u * kUnit, at.quants + static_cast<ptrdiff_t>(u) * layout.unit_bytes);
}

void load_block(WeightType type, const char* packed, int index, int lane, QuantBlock& values) {
  const Places at = places(type, const_cast<char*>(packed), index,
                           lane);  // only read below
  move_header(type, at.header, lane, LoadHeader{values});
  const QuantLayout layout = quant_layout(type);
  for (int u = 0; u < layout.block / kUnit; ++u)
    load_unit(type, at.quants + static_cast<ptrdiff_t>(u) * layout.unit_bytes, values.values + u * kUnit);
}

// A lane has the same bytes of every vector, whatever the bits in them are.
void copy_block(WeightType type, const char* source, int from, char* target, int to, int index) {
  const Places read = places(type, const_cast<char*>(source), index, from);  // only read below
  const Places write = places(type, target, index, to);
  QuantBlock header;
  move_header(type, read.header, from, LoadHeader{header});
  move_header(type, write.header, to, StoreHeader{header});
  const QuantLayout layout = quant_layout(type);
  for (ptrdiff_t at = 0; at < static_cast<ptrdiff_t>(layout.block) / kUnit * layout.unit_bytes; at += kVector)
    std::memcpy(write.quants + at, read.quants + at, kStep);
}

float weight(WeightType type, const QuantBlock& b, int j) {
  const float scale = f16_to_float(b.scale), value = static_cast<float>(b.values[j]);
  switch (type) {
    case WeightType::q4_0:
      return scale * (value - 8.0f);
    case WeightType::q4_1:
      return scale * value + f16_to_float(b.minimum);
    case WeightType::q8_0:
      return scale * static_cast<float>(static_cast<int8_t>(b.values[j]));
    case WeightType::q6_k:
      return scale * static_cast<float>(static_cast<int8_t>(b.scales[j / 16])) * (value - 32.0f);
    default: {
      const float own = scale * static_cast<float>(b.scales[j / kUnit]);
      return own * value + f16_to_float(b.minimum) * static_cast<float>(b.minimums[j / kUnit]);
    }
  }
}

void weights_of(WeightType type, const QuantBlock& b, int count, float* out) {
  if (type == WeightType::q8_0) {
    const float scale = f16_to_float(b.scale);
    for (int j = 0; j < count; ++j) out[j] = scale * static_cast<float>(static_cast<int8_t>(b.values[j]));
  } else {
    for (int j = 0; j < count; ++j) out[j] = weight(type, b, j);
  }
}

}  // namespace specee
