// Shape of a decoder-only transformer; mirrors specee.types.ModelConfig field by field.
#pragma once

#include <vector>

namespace specee {

enum class RopeScaling { none, linear, llama3 };

struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int original_max_position = 8192;
};

struct ModelConfig {
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int max_position = 0;
  float norm_eps = 1e-5f;
  RopeConfig rope;
  std::vector<int> windows;  // per layer, 0 = full attention
  bool tied_head = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;
  bool attn_norm = true;  // a layer norms what its attention reads; some drafter blocks do not

  int q_dim() const { return num_heads * head_dim; }
  int kv_dim() const { return num_kv_heads * head_dim; }
};

}  // namespace specee
