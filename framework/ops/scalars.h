#pragma once
// Reading many small results at once: one transfer from the device instead of one for each.

#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// The values of tensors of one element, of any dtype but bf16, in order: f64 [n], on their device.
Tensor pack_scalars(const std::vector<Tensor>& scalars);

}  // namespace fulcrum::ops
