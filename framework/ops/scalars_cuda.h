#pragma once
// What scalars.cu launches. Internal to ops/scalars.h.

#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

void pack_scalars(const std::vector<Tensor>& scalars, const Tensor& packed);

}  // namespace fulcrum::ops::cuda
