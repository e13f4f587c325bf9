#pragma once
// Matrix products on CUDA through cuBLASLt. Internal to ops/gemm.h and to optimizers.
//
// Operands are both bf16 (with a bf16 or f32 result) or all f32; sums are formed in f32, and f32
// products are not rounded to TF32. The same shapes and alignments always take the same algorithm,
// so results repeat bit for bit.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// A matrix as a product reads or writes it: the first `columns` elements of every row of a tensor
// [rows, stride].
struct Matrix {
  Matrix(const Tensor& t) : Matrix(t, t.dim(1)) {}
  Matrix(const Tensor& t, std::int64_t columns) : tensor(t), columns(columns) {}
  std::int64_t rows() const { return tensor.dim(0); }
  std::int64_t stride() const { return tensor.dim(1); }

  Tensor tensor;
  std::int64_t columns;
};

// out = op(a) · op(b), or out += when add is set; op transposes when ta or tb is set.
void multiply(const Matrix& a, bool ta, const Matrix& b, bool tb, const Matrix& out, bool add);

// out_i = alpha · op(a_i) · op(b_i) + beta · out_i for every i of the leading dimension of tensors
// of rank 3. With beta = 0, out is not read.
void multiply_batched(const Tensor& a, bool ta, const Tensor& b, bool tb, const Tensor& out,
                      float alpha, float beta);

}  // namespace fulcrum::ops::cuda
