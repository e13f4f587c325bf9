#pragma once
// AdamW on CUDA. Internal to the optimizers.

#include <vector>

#include "framework/nn/parameter.h"
#include "framework/optim/adam_kernel.h"

namespace fulcrum::cuda {

struct AdamTensors {
  const Parameter& parameter;
  Tensor gradient;       // f32, of master's rows; undefined: zero
  Tensor first, second;  // both f32 or both bf16
  RoundingDraws draws;   // of bf16 moments, for master's rows
  double keep;           // instead of that of the constants
};

// One step of all tensors, in one launch for up to some hundred of them whose moments are of one
// dtype, and the rounding of their values in the same pass: 30 bytes an element move, 22 with
// moments in bf16, and 2 fewer where the value is not rounded.
void adam(const std::vector<AdamTensors>& list, const AdamConstants<float>& constants);

}  // namespace fulcrum::cuda
