#pragma once
// Muon on CUDA. Internal to the optimizers.

#include <vector>

#include "framework/optim/muon.h"

namespace fulcrum::cuda {

struct MuonTensors {
  const Parameter& parameter;
  Tensor gradient;  // f32, of master's rows; undefined: zero
  Tensor momentum;
};

// One step. Matrices of one shape are worked on together, as many as fit into a bounded scratch.
void muon(const std::vector<MuonTensors>& list, const MuonOptions& options, double lr,
          double gradient_scale);

}  // namespace fulcrum::cuda
