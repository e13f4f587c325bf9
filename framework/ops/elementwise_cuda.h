#pragma once
// What elementwise.cu and column_sums.cu launch. Internal to the operators. Tensors are f32 or
// bf16.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// y = factor · x; y may be x.
void scale(const Tensor& x, double factor, const Tensor& y);
// y = x + bias in every row; bias f32 [width].
void add_bias(const Tensor& x, const Tensor& bias, const Tensor& y);
// y f32 [1] = Σ x
void sum(const Tensor& x, const Tensor& y);
// out (+)= value [1], f32, in every element
void broadcast(const Tensor& value, const Tensor& out, bool add);
// out f32 [width] (+)= Σ over the rows of x [rows, width]
void column_sums(const Tensor& x, const Tensor& out, bool add);

// x = factor · x, with factor f32 [1] on the device; returns early when that is 1.
void scale_by(const Tensor& x, const Tensor& factor);
// out (+)= factor · x
void scaled_into(const Tensor& x, const Tensor& factor, const Tensor& out, bool add);

}  // namespace fulcrum::ops::cuda
