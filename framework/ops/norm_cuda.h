#pragma once
// What norm_*.cu launch. Internal to ops/norm.h, which has the formula. Activations are f32 or
// bf16; weight, inverse and sums are f32.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// normed = x · inverse · weight with x = a, or a + b, which sum receives, when b is defined;
// inverse [rows] = 1 / √(mean(x²) + eps).
void rms_norm(const Tensor& a, const Tensor& b, const Tensor& weight, double eps, const Tensor& sum,
              const Tensor& normed, const Tensor& inverse);

// dx (+)= through + the input half of the gradient; dx and through may be undefined. Returns
// partial sums of the weight's gradient [parts, width], undefined unless wanted.
Tensor rms_norm_backward(const Tensor& x, const Tensor& weight, const Tensor& inverse,
                         const Tensor& g, const Tensor& through, const Tensor& dx, bool add,
                         bool wants_weight);

}  // namespace fulcrum::ops::cuda
