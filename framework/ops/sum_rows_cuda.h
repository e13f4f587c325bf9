#pragma once
// The last step of sums that kernels form in parts, as those of the gradients of vectors.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// out [width] (+)= factor ⊙ Σ over the rows of x [rows, width], all f32, in a fixed order; factor
// [width] may be undefined.
void sum_rows(const Tensor& x, const Tensor& out, bool add, const Tensor& factor = {});

}  // namespace fulcrum::ops::cuda
