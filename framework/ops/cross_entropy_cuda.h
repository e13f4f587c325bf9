#pragma once
// What cross_entropy.cu computes. Internal to ops/cross_entropy.h, which has the formula.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// loss f32 [1] and nll_sum f64 [1]; dhidden (like hidden) and dhead (f32) receive the gradients of
// the loss where they are defined.
void linear_cross_entropy(const Tensor& hidden, const Tensor& head, const Tensor& targets,
                          double scale, double z_weight, const Tensor& dhidden, const Tensor& dhead,
                          const Tensor& loss, const Tensor& nll_sum);

// Log-sum-exp and −log p(target) of every row of logits [rows, stride], of which the first
// `vocabulary` columns count, into lse and nll f32 [rows]; zeros where the target is negative. With
// `gradient`, the logits become the gradient of scale · Σ (nll + z_weight · lse²).
void softmax_rows(const Tensor& logits, std::int64_t vocabulary, const Tensor& targets,
                  double scale, double z_weight, bool gradient, const Tensor& nll,
                  const Tensor& lse);

}  // namespace fulcrum::ops::cuda
