#pragma once
// Products of bf16 matrices with f32 accumulation and f32 results, through oneDNN. Internal to
// ops/gemm.

#include <cstdint>

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// Throws UserError when the build has no oneDNN or the processor no bf16 instructions.
void require_bf16();

// rounded[i] = scale · source[i], to nearest even.
void round_row(const float* source, std::int64_t n, float scale, BFloat16* rounded);

// rounded [rows, width] bf16 = scale · source, whose rows are ld apart.
void round_rows(const float* source, std::int64_t ld, float scale, const Tensor& rounded);

// c = op(a) · op(b) + beta · c; arguments as in gemm. Transposed operands are read in place. Inside
// an OpenMP parallel region it runs on the calling thread.
void gemm_bf16(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const BFloat16* a,
               std::int64_t lda, const BFloat16* b, std::int64_t ldb, float beta, float* c,
               std::int64_t ldc);

}  // namespace fulcrum::ops
