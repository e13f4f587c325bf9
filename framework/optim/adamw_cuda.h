#pragma once
// AdamW on CUDA. Internal to the optimizers.

#include <vector>

#include "framework/nn/parameter.h"
#include "framework/optim/adam_kernel.h"

namespace fulcrum::cuda {

struct AdamTensors {
  const Parameter& parameter;
  Tensor gradient;  // f32, of master's rows; undefined: zero
  Tensor first, second;
  double keep;  // instead of that of the constants
};

// One step of all tensors, in one launch for up to some hundred of them, and the rounding of their
// values in the same pass: 30 bytes an element move, 28 where the value is not rounded.
void adam(const std::vector<AdamTensors>& list, const AdamConstants<float>& constants);

}  // namespace fulcrum::cuda
