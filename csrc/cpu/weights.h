// Every tensor of a model, packed: specee/models/table.py names the roles.
#pragma once

#include <string>
#include <vector>

#include "cpu/packed.h"
#include "specee/config.h"

namespace specee {

struct LayerWeights {
  std::vector<float> attn_norm, mlp_norm;  // hidden_size
  std::vector<float> q_norm, k_norm;       // head_dim, empty without q/k norms
  PackedMatrix qkv;                        // q_dim + 2 kv_dim rows: q, k, v
  PackedMatrix o;                          // hidden_size rows of q_dim
  PackedMatrix gate_up;                    // blocks of 16 alternate gate, up
  PackedMatrix down;                       // hidden_size rows of intermediate_size
};

class ModelWeights {
 public:
  // `format` is f32 or bf16; norms and biases are always f32.
  ModelWeights(const ModelConfig& config, Dtype format);

  // Rows row_begin .. row_begin + rows of one tensor. Throws CheckpointError for an unknown role and
  // for rows that are not the tensor's next ones. `columns` is 1 for vectors.
  void set(const std::string& role, int layer, int row_begin, int rows, int columns, const void* values,
           Dtype source);
  // Throws CheckpointError naming the first tensor that is not wholly there.
  void check_complete() const;

  const LayerWeights& layer(int index) const { return layers_[static_cast<size_t>(index)]; }
  const PackedMatrix& embed() const { return embed_; }
  const PackedMatrix& head() const { return tied_ ? embed_ : head_; }
  const std::vector<float>& final_norm() const { return final_norm_; }
  Dtype format() const { return format_; }
  size_t bytes() const;
  // What one decoding step reads: all but the embedding of an untied head, of which it reads one row.
  size_t step_bytes() const;

 private:
  struct Target {
    std::string role;
    PackedMatrix* matrix = nullptr;        // a matrix, or its bias ...
    std::vector<float>* vector = nullptr;  // ... or a plain vector
    bool bias = false;
    Placement placement;
    int rows = 0, columns = 1;
    int filled = 0;
  };
  void list_targets(const ModelConfig& config);

  Dtype format_;
  bool tied_;
  PackedMatrix embed_, head_;
  std::vector<float> final_norm_;
  std::vector<LayerWeights> layers_;
  std::vector<std::vector<Target>> targets_;  // [0] those without a layer, [1 + l] layer l's
};

}  // namespace specee
