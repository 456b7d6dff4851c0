// A residual bottleneck on hidden states: h + up * silu(down * rms_norm(h, norm)) (Houlsby et al., 2019).
#pragma once

#include <vector>

#include "cpu/inputs.h"
#include "cpu/packed.h"
#include "cpu/thread_pool.h"
#include "specee/config.h"

namespace specee {

struct Adapter {
  // norm: hidden; down: width x hidden; up: hidden x width. Kept as bf16, the norm as it is.
  Adapter(int hidden, int width, const float* norm_values, const float* down_values, const float* up_values);

  int width() const { return down.outputs(); }
  size_t bytes() const { return down.bytes() + up.bytes() + norm.size() * sizeof(float); }

  std::vector<float> norm;
  PackedMatrix down, up;
};

// Takes rows through an adapter, shared out among a team.
class AdapterPass {
 public:
  AdapterPass(const ModelConfig& config, const Kernels& kernels, int members);

  // Adapters up to this width can be used from now on.
  void reserve(int width);
  // `hidden`: rows pointers, at most kMaxRows. Every member calls it and gets rows x hidden_size floats,
  // there until the next call.
  const float* run(Team& team, const Adapter& adapter, const float* const* hidden, int rows);

 private:
  const ModelConfig& config_;
  const Kernels& kernels_;
  const int members_;
  Forms forms_;
  int width_ = 0;
  std::vector<Inputs> inputs_;  // one, once there is an adapter
  std::vector<float> inner_;    // kMaxRows x width
  std::vector<float> states_;   // kMaxRows x hidden_size
};

}  // namespace specee
