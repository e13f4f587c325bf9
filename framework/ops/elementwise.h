#pragma once
// Elementwise arithmetic. Shapes and dtypes of the inputs must agree; all are differentiable.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// a + b
Tensor add(const Tensor& a, const Tensor& b);
// x [..., width] + bias [width] in every row; bias is f32 beside bf16
Tensor add_bias(const Tensor& x, const Tensor& bias);
// factor · x
Tensor scale(const Tensor& x, double factor);
// Σ x, a scalar of shape [1], f32 for bf16
Tensor sum(const Tensor& x);

}  // namespace fulcrum::ops
