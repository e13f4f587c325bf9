#pragma once
// The gradient's norm on CUDA. Internal to clipping.

#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum::cuda {

struct Summand {
  Tensor values;  // f32
  Tensor rows;    // i64 [1]: only so many leading rows count; undefined: all
};

// f64 [1] on the device: Σ x² over all summands. Reads 4 bytes an element.
Tensor square_sum(const std::vector<Summand>& summands, Device device);

}  // namespace fulcrum::cuda
