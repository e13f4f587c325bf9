#pragma once
// Causal attention on CUDA. Internal to ops/attention.h, which has the formula and the shapes. bf16
// goes to cuDNN (attention_cudnn.h) where it has a kernel; everything else to kernels of our own.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// log_sum [B, H, S], f32, receives the logarithm of each position's softmax denominator.
void attention(const Tensor& query, const Tensor& key, const Tensor& value, double scale,
               const Tensor& output, const Tensor& log_sum);

// Overwrites dq, dk and dv, which have the shapes and dtype of query, key and value.
void attention_backward(const Tensor& query, const Tensor& key, const Tensor& value, double scale,
                        const Tensor& output, const Tensor& log_sum, const Tensor& grad,
                        const Tensor& dq, const Tensor& dk, const Tensor& dv);

// The kernels of our own: any length, heads of at most 256, f32 or bf16, sums in f32.
void plain_attention(const Tensor& query, const Tensor& key, const Tensor& value, double scale,
                     const Tensor& output, const Tensor& log_sum);
void plain_attention_backward(const Tensor& query, const Tensor& key, const Tensor& value,
                              double scale, const Tensor& output, const Tensor& log_sum,
                              const Tensor& grad, const Tensor& dq, const Tensor& dk,
                              const Tensor& dv);

}  // namespace fulcrum::ops::cuda
