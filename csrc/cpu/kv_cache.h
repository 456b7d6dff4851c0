// Keys and values of one sequence, by layer, key/value head and slot.
//
// Keys are stored in tiles of 16 slots, [tile][head_dim][16], so that a vector holds one dimension of 16
// positions; values row by row, [slot][value_stride], head_dim padded with zeros to a multiple of 16.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/memory.h"
#include "specee/config.h"

namespace specee {

class KvCache {
 public:
  KvCache(const ModelConfig& config, int capacity, Dtype dtype);

  static size_t bytes_needed(const ModelConfig& config, int capacity, Dtype dtype);

  // Puts head_dim elements of the cache's dtype into a slot.
  void store_key(int layer, int head, int slot, const void* key);
  void store_value(int layer, int head, int slot, const void* value);
  void read(int layer, int head, int slot, float* key, float* value) const;
  // In the first `layers` layers slot from[i] moves to slot to[i], all at once: the lists may overlap.
  void move(const std::vector<int>& from, const std::vector<int>& to, int layers);
  // Fills a slot with NaN, so that any use of it shows.
  void poison(int slot);

  const void* keys(int layer, int head) const { return key_base(layer, head); }
  const void* values(int layer, int head) const { return value_base(layer, head); }
  int layers() const { return layers_; }
  int heads() const { return heads_; }
  int head_dim() const { return head_dim_; }
  Dtype dtype() const { return dtype_; }
  int value_stride() const { return value_stride_; }
  size_t bytes() const { return memory_.bytes(); }

 private:
  char* key_base(int layer, int head) const;
  char* value_base(int layer, int head) const;
  size_t key_index(int slot, int dim) const;
  template <class Element>
  void spread_key(Element* keys, int slot, const Element* key);
  template <class Element>
  void move_elements(const std::vector<int>& from, const std::vector<int>& to, int layers);
  void put(char* base, size_t index, float value);
  float get(const char* base, size_t index) const;

  int layers_, heads_, head_dim_, value_stride_;
  Dtype dtype_;
  size_t key_bytes_, value_bytes_;  // of one head of one layer
  Memory memory_;
};

}  // namespace specee
