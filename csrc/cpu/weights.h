// Every tensor of a model, packed: specee/models/table.py names the roles.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cpu/packed.h"
#include "specee/config.h"

namespace specee {

// How each matrix is stored, by role and layer (-1: embed, head).
using WeightTypes = std::map<std::pair<std::string, int>, WeightType>;

struct LayerWeights {
  std::vector<float> attn_norm, mlp_norm;  // hidden_size; the first is empty where there is none
  std::vector<float> q_norm, k_norm;       // head_dim, empty without q/k norms
  std::vector<PackedMatrix> qkv;  // q_dim + 2 kv_dim rows: q, k, v; one, or three if their types differ
  PackedMatrix o;                 // hidden_size rows of q_dim
  PackedMatrix gate_up;           // blocks of 16 alternate gate, up
  PackedMatrix down;              // hidden_size rows of intermediate_size
};

class ModelWeights {
 public:
  // `types` has an entry for every matrix; norms and biases are always f32. Throws ConfigurationError for a
  // matrix without an entry, for gate and up of different types, and for q, k, v of different types whose
  // heads do not fill whole blocks.
  ModelWeights(const ModelConfig& config, const WeightTypes& types);

  // Rows row_begin .. row_begin + rows of one tensor. Throws CheckpointError for an unknown role, for rows
  // that are not the tensor's next ones, and for a source type that the tensor does not take. `columns` is 1
  // for vectors, the bytes of a row for quantised sources.
  void set(const std::string& role, int layer, int row_begin, int rows, int columns, const void* values,
           WeightType source);
  // Rows of a matrix as floats, rows x columns(role): what the kernels' layout holds. Throws CheckpointError.
  void read(const std::string& role, int layer, int row_begin, int rows, float* out) const;
  int columns(const std::string& role, int layer) const;
  // Throws CheckpointError naming the first tensor that is not wholly there.
  void check_complete() const;

  const LayerWeights& layer(int index) const { return layers_[static_cast<size_t>(index)]; }
  const PackedMatrix& embed() const { return embed_; }
  const PackedMatrix& head() const { return tied_ ? embed_ : head_; }
  const std::vector<float>& final_norm() const { return final_norm_; }
  // All matrices.
  std::vector<const PackedMatrix*> matrices() const;
  size_t bytes() const;
  // Bytes of the weights that each step of a pass reads, over all layers; the head's are those of step
  // `head`.
  std::map<std::string, size_t> bytes_by_step() const;
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
  void make_layer(const ModelConfig& config, const WeightTypes& types, int index);
  void list_targets(const ModelConfig& config);
  const Target& target(const std::string& role, int layer) const;

  bool tied_;
  PackedMatrix embed_, head_;
  std::vector<float> final_norm_;
  std::vector<LayerWeights> layers_;
  std::vector<std::vector<Target>> targets_;  // [0] those without a layer, [1 + l] layer l's
};

}  // namespace specee
