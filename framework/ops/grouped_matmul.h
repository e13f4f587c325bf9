#pragma once
// Products of consecutive groups of rows with one matrix each: the experts of a mixture after their
// tokens were sorted.

#include "framework/core/tensor.h"
#include "framework/ops/gemm.h"

namespace fulcrum::ops {

// y[r] = weight[g] · x[r] for the rows offsets[g] <= r < offsets[g + 1] of each group g.
// x [rows, in], weight [groups, out, in], offsets i64 [groups + 1] → [rows, out]. offsets start at
// 0, never fall and end at most at rows; rows behind the last group are zero. Any group may be
// empty; its weight gradient is zero. Differentiable in x and weight; f32 products follow
// set_matmul_precision on the CPU and are exact on CUDA. On CUDA offsets are read by the device and
// not checked, and bf16 operands are summed in f32.
Tensor grouped_linear(const Tensor& x, const Tensor& weight, const Tensor& offsets);

}  // namespace fulcrum::ops
