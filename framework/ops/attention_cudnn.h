#pragma once
// Causal attention of bf16 tensors by cuDNN's fused kernels. Internal to attention_cuda.h, which
// has the shapes. Each function returns false, and has done nothing, where cuDNN has no kernel for
// these sizes on this GPU; for a reason that is not the sizes' it warns once.
//
// Backward with deterministic() (core/determinism.h) keeps the gradient of the scores, 2 bytes a
// pair of positions, between its two passes: sequences and heads are taken in parts whose scores
// fit 2 GiB. A group of heads too long for that is refused.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

bool cudnn_attention(const Tensor& query, const Tensor& key, const Tensor& value, double scale,
                     const Tensor& output, const Tensor& log_sum);

bool cudnn_attention_backward(const Tensor& query, const Tensor& key, const Tensor& value,
                              double scale, const Tensor& output, const Tensor& log_sum,
                              const Tensor& grad, const Tensor& dq, const Tensor& dk,
                              const Tensor& dv);

}  // namespace fulcrum::ops::cuda
