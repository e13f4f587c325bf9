#pragma once
// Matrix products over OpenBLAS, over oneDNN in bf16, and over cuBLASLt. Internal to the operators;
// models use ops/matmul.h.

#include <cstdint>

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// How a CPU computes products of f32 matrices. f64 products are always exact; on CUDA the dtypes
// say it all, and f32 products stay f32.
//   f32   inputs as they are
//   bf16  inputs rounded to bf16, products accumulated and stored in f32
enum class MatmulPrecision : std::uint8_t { f32, bf16 };

// Process-wide choice, f32 at first. Throws UserError for bf16 when this build (no oneDNN) or this
// processor (no bf16 instructions) cannot do it.
void set_matmul_precision(MatmulPrecision precision);
MatmulPrecision matmul_precision();

// Device memory that products on CUDA share, taken with the first of them.
inline constexpr std::int64_t kMatmulWorkspaceBytes = std::int64_t{64} << 20;

// c = alpha · op(a) · op(b) + beta · c, row-major; op transposes when ta or tb is set. c is [m, n],
// op(a) [m, k], op(b) [k, n]; lda, ldb and ldc are the distances between stored rows. With beta =
// 0, c is not read. Runs on all threads, or on the calling one alone inside an OpenMP parallel
// region. T is float or double; float follows matmul_precision(), but for products too small to
// gain by it.
template <class T>
void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, T alpha, const T* a,
          std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc);

// The same, always in f32 or f64.
template <class T>
void exact_gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, T alpha,
                const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c,
                std::int64_t ldc);

// x as products of this precision read it: x itself, or its rounding when x is f32 on the CPU and
// the precision bf16. Operators that multiply one matrix several times round it once.
Tensor matmul_operand(const Tensor& x, MatmulPrecision precision);

// out = op(a) · op(b), or out += when add is set, for whole matrices that come from matmul_operand
// with one precision. Two bf16 matrices give f32, on CUDA also bf16.
void multiply(const Tensor& a, bool ta, const Tensor& b, bool tb, const Tensor& out, bool add);

}  // namespace fulcrum::ops
