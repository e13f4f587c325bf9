#pragma once
// Products of dense matrices, differentiable. On a CPU, f32 products follow set_matmul_precision,
// or the precision given; on CUDA, products of bf16 matrices are bf16 with sums in f32, and f32
// products are f32.

#include "framework/core/tensor.h"
#include "framework/ops/gemm.h"

namespace fulcrum::ops {

// op(a) · op(b) → [m, n]. a is [m, k], or [k, m] when transpose_a; b is [k, n], or [n, k] when
// transpose_b. Dimensions may be zero; an empty inner dimension gives zeros.
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false, bool transpose_b = false);

// x · weightᵀ: x [..., in], weight [out, in] → [..., out]. The weight's gradient is work that a
// pipeline may defer (Backward::weight_gradient). Routers ask for f32 whatever the rest of the
// model uses: on CUDA x may then be bf16 beside an f32 weight, and the result is f32.
Tensor linear(const Tensor& x, const Tensor& weight,
              MatmulPrecision precision = matmul_precision());

}  // namespace fulcrum::ops
