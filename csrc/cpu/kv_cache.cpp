#include "cpu/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace specee {
namespace {

// Whole key tiles.
int padded_slots(int capacity) { return round_up(capacity, kLanes); }

}  // namespace

KvCache::KvCache(const ModelConfig& config, int capacity, Dtype dtype)
    : layers_(config.num_layers),
      heads_(config.num_kv_heads),
      head_dim_(config.head_dim),
      value_stride_(round_up(config.head_dim, kLanes)),
      dtype_(dtype),
      key_bytes_(static_cast<size_t>(padded_slots(capacity)) * head_dim_ * dtype_bytes(dtype)),
      value_bytes_(static_cast<size_t>(padded_slots(capacity)) * value_stride_ * dtype_bytes(dtype)),
      memory_(bytes_needed(config, capacity, dtype), "a KV cache") {}

size_t KvCache::bytes_needed(const ModelConfig& config, int capacity, Dtype dtype) {
  const size_t width = static_cast<size_t>(config.head_dim) + round_up(config.head_dim, kLanes);
  return static_cast<size_t>(padded_slots(capacity)) * width * dtype_bytes(dtype) * config.num_kv_heads *
         config.num_layers;
}

char* KvCache::key_base(int layer, int head) const {
  return memory_.data() + (static_cast<size_t>(layer) * heads_ + head) * (key_bytes_ + value_bytes_);
}

char* KvCache::value_base(int layer, int head) const { return key_base(layer, head) + key_bytes_; }

size_t KvCache::key_index(int slot, int dim) const {
  return (static_cast<size_t>(slot / kLanes) * head_dim_ + dim) * kLanes + slot % kLanes;
}

void KvCache::put(char* base, size_t index, float value) {
  if (dtype_ == Dtype::f32)
    reinterpret_cast<float*>(base)[index] = value;
  else
    reinterpret_cast<uint16_t*>(base)[index] =
        dtype_ == Dtype::bf16 ? float_to_bf16(value) : float_to_f16(value);
}

float KvCache::get(const char* base, size_t index) const {
  if (dtype_ == Dtype::f32) return reinterpret_cast<const float*>(base)[index];
  const uint16_t half = reinterpret_cast<const uint16_t*>(base)[index];
  return dtype_ == Dtype::bf16 ? bf16_to_float(half) : f16_to_float(half);
}

template <class Element>
void KvCache::spread_key(Element* keys, int slot, const Element* key) {
  Element* lane = keys + key_index(slot, 0);
  for (int d = 0; d < head_dim_; ++d) lane[d * kLanes] = key[d];
}

void KvCache::store_key(int layer, int head, int slot, const void* key) {
  char* keys = key_base(layer, head);
  if (dtype_ == Dtype::f32)
    spread_key(reinterpret_cast<uint32_t*>(keys), slot, static_cast<const uint32_t*>(key));
  else
    spread_key(reinterpret_cast<uint16_t*>(keys), slot, static_cast<const uint16_t*>(key));
}

void KvCache::store_value(int layer, int head, int slot, const void* value) {
  const size_t width = static_cast<size_t>(dtype_bytes(dtype_));
  char* row = value_base(layer, head) + static_cast<size_t>(slot) * value_stride_ * width;
  std::memcpy(row, value, static_cast<size_t>(head_dim_) * width);
  std::memset(row + static_cast<size_t>(head_dim_) * width, 0,
              static_cast<size_t>(value_stride_ - head_dim_) * width);
}

void KvCache::read(int layer, int head, int slot, float* key, float* value) const {
  for (int d = 0; d < head_dim_; ++d) key[d] = get(key_base(layer, head), key_index(slot, d));
  for (int d = 0; d < head_dim_; ++d)
    value[d] = get(value_base(layer, head), static_cast<size_t>(slot) * value_stride_ + d);
}

template <class Element>
void KvCache::move_elements(const std::vector<int>& from, const std::vector<int>& to, int layers) {
  const size_t width = static_cast<size_t>(head_dim_ + value_stride_);
  std::vector<Element> held(from.size() * width);
  for (int layer = 0; layer < layers; ++layer)
    for (int head = 0; head < heads_; ++head) {
      Element* keys = reinterpret_cast<Element*>(key_base(layer, head));
      Element* values = reinterpret_cast<Element*>(value_base(layer, head));
      for (size_t i = 0; i < from.size(); ++i) {
        Element* row = &held[i * width];
        for (int d = 0; d < head_dim_; ++d) row[d] = keys[key_index(from[i], d)];
        std::copy_n(values + static_cast<size_t>(from[i]) * value_stride_, value_stride_, row + head_dim_);
      }
      for (size_t i = 0; i < to.size(); ++i) {
        const Element* row = &held[i * width];
        for (int d = 0; d < head_dim_; ++d) keys[key_index(to[i], d)] = row[d];
        std::copy_n(row + head_dim_, value_stride_, values + static_cast<size_t>(to[i]) * value_stride_);
      }
    }
}

void KvCache::move(const std::vector<int>& from, const std::vector<int>& to, int layers) {
  if (dtype_ == Dtype::f32)
    move_elements<uint32_t>(from, to, layers);
  else
    move_elements<uint16_t>(from, to, layers);
}

void KvCache::poison(int slot) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (int layer = 0; layer < layers_; ++layer)
    for (int head = 0; head < heads_; ++head) {
      for (int d = 0; d < head_dim_; ++d) put(key_base(layer, head), key_index(slot, d), nan);
      for (int d = 0; d < value_stride_; ++d)
        put(value_base(layer, head), static_cast<size_t>(slot) * value_stride_ + d, nan);
    }
}

}  // namespace specee
