#pragma once
// RMSNorm (Zhang and Sennrich 2019), alone and fused with the residual addition before it.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// y = x / sqrt(mean(x²) + eps) · weight over the last dimension; x [..., width], weight [width],
// both differentiable.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);

struct NormedSum {
  Tensor sum;     // a + b
  Tensor normed;  // rms_norm(a + b)
};

// The residual stream's addition and the norm that follows it, in one pass. a and b have one shape;
// differentiable in both and in weight; either output may stay unused.
NormedSum add_rms_norm(const Tensor& a, const Tensor& b, const Tensor& weight, double eps);

}  // namespace fulcrum::ops
