#pragma once
// What expert_load.cu launches. Internal to ops/expert_load.h.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

void accumulate_counts(const Tensor& total, const Tensor& counts);
void follow_load(const Tensor& bias, const Tensor& load, float rate);

}  // namespace fulcrum::ops::cuda
