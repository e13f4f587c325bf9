#pragma once
// linear (ops/matmul.h) of bf16 activations and an f32 weight, as routers need it, on tensor cores.
//
// An f32 number is the sum of three bf16 numbers, so x · Wᵀ is one bf16 product with three stacked
// parts of W, whose results are added in f32: exact operands for the time of reading x once. For
// gradients the weight counts as its first part, which is as exact as a bf16 gradient of x needs,
// and dy as its first two (16 bits).

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// x bf16 [..., in], weight f32 [out, in] → f32 [..., out], differentiable in both.
Tensor mixed_linear(const Tensor& x, const Tensor& weight);

}  // namespace fulcrum::ops::cuda
