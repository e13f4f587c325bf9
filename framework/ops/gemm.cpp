#include "framework/ops/gemm.h"

#include <cblas.h>

#include <atomic>
#include <limits>

#ifdef FULCRUM_HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

#include "framework/ops/gemm_bf16.h"
#include "framework/ops/gemm_cuda.h"
#include "framework/ops/gemm_transposed.h"

namespace fulcrum::ops {
namespace {

std::atomic<MatmulPrecision> process_precision{MatmulPrecision::f32};

CBLAS_TRANSPOSE transpose(bool t) { return t ? CblasTrans : CblasNoTrans; }

blasint narrow(std::int64_t size) {
  FULCRUM_CHECK(size <= std::numeric_limits<blasint>::max(), "a matrix of {} rows or columns",
                size);
  return static_cast<blasint>(size);
}

// Multiplications below which rounding the operands and calling oneDNN costs more than the whole
// f32 product.
constexpr std::int64_t kLeastBf16 = 48 * 48 * 48;

// Multiplications from which copying the operands pays in gemm_transposed.
constexpr std::int64_t kLeastTransposed = 48 * 48 * 48;

// A product over an empty inner dimension: c = beta · c.
template <class T>
void scale_rows(std::int64_t m, std::int64_t n, T beta, T* c, std::int64_t ldc) {
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j)
      c[i * ldc + j] = beta == T(0) ? T(0) : beta * c[i * ldc + j];
  }
}

}  // namespace

void set_matmul_precision(MatmulPrecision precision) {
  if (precision == MatmulPrecision::bf16) require_bf16();
  process_precision = precision;
}

MatmulPrecision matmul_precision() { return process_precision; }

template <class T>
void exact_gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, T alpha,
                const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c,
                std::int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) return scale_rows(m, n, beta, c, ldc);
  if constexpr (std::is_same_v<T, float>) {
    if (ta && !tb && alpha == 1.0f && (beta == 0.0f || beta == 1.0f) &&
        m * n * k >= kLeastTransposed && has_gemm_transposed()) {
      return gemm_transposed(m, n, k, a, lda, b, ldb, beta == 1.0f, c, ldc);
    }
#ifdef FULCRUM_HAVE_ONEDNN
    // oneDNN is faster than OpenBLAS with a on the left as stored: by up to a third where both know
    // the processor, by half where OpenBLAS is older than it.
    if (!ta) {
      const dnnl_status_t status =
          dnnl_sgemm('N', tb ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
      FULCRUM_CHECK(status == dnnl_success, "dnnl_sgemm of {} x {} x {}: status {}", m, n, k,
                    static_cast<int>(status));
      return;
    }
#endif
    cblas_sgemm(CblasRowMajor, transpose(ta), transpose(tb), narrow(m), narrow(n), narrow(k), alpha,
                a, narrow(lda), b, narrow(ldb), beta, c, narrow(ldc));
  } else {
    cblas_dgemm(CblasRowMajor, transpose(ta), transpose(tb), narrow(m), narrow(n), narrow(k), alpha,
                a, narrow(lda), b, narrow(ldb), beta, c, narrow(ldc));
  }
}

template <class T>
void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, T alpha, const T* a,
          std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
  if constexpr (std::is_same_v<T, float>) {
    if (matmul_precision() == MatmulPrecision::bf16 && m * n * k >= kLeastBf16) {
      const Tensor x = Tensor::empty({ta ? k : m, ta ? m : k}, DType::bf16);
      const Tensor y = Tensor::empty({tb ? n : k, tb ? k : n}, DType::bf16);
      round_rows(a, lda, alpha, x);
      round_rows(b, ldb, 1.0f, y);
      return gemm_bf16(ta, tb, m, n, k, x.data<BFloat16>(), x.dim(1), y.data<BFloat16>(), y.dim(1),
                       beta, c, ldc);
    }
  }
  exact_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

#define FULCRUM_INSTANTIATE_GEMM(name, T)                                                  \
  template void name<T>(bool, bool, std::int64_t, std::int64_t, std::int64_t, T, const T*, \
                        std::int64_t, const T*, std::int64_t, T, T*, std::int64_t)
FULCRUM_INSTANTIATE_GEMM(exact_gemm, float);
FULCRUM_INSTANTIATE_GEMM(exact_gemm, double);
FULCRUM_INSTANTIATE_GEMM(gemm, float);
FULCRUM_INSTANTIATE_GEMM(gemm, double);
#undef FULCRUM_INSTANTIATE_GEMM

Tensor matmul_operand(const Tensor& x, MatmulPrecision precision) {
  if (precision != MatmulPrecision::bf16 || x.dtype() != DType::f32 || !x.device().is_cpu()) {
    return x;
  }
  const Tensor rounded = Tensor::empty(x.shape(), DType::bf16);
  const std::int64_t width = x.rank() > 0 ? x.dim(-1) : 1;
  const std::int64_t rows = width > 0 ? x.numel() / width : 0;
  round_rows(x.data<float>(), width, 1.0f, rounded.reshape({rows, width}));
  return rounded;
}

void multiply(const Tensor& a, bool ta, const Tensor& b, bool tb, const Tensor& out, bool add) {
  if constexpr (kBuiltWithCuda) {
    if (a.device().is_cuda()) return cuda::multiply(a, ta, b, tb, out, add);
  }
  const std::int64_t m = out.dim(0);
  const std::int64_t n = out.dim(1);
  const std::int64_t k = a.dim(ta ? 0 : 1);
  if (a.dtype() == DType::bf16) {
    if (m == 0 || n == 0) return;
    if (k == 0) return scale_rows(m, n, add ? 1.0f : 0.0f, out.data<float>(), n);
    return gemm_bf16(ta, tb, m, n, k, a.data<BFloat16>(), a.dim(1), b.data<BFloat16>(), b.dim(1),
                     add, out.data<float>(), n);
  }
  dispatch_floating("matmul", a.dtype(), [&]<class T>() {
    exact_gemm<T>(ta, tb, m, n, k, T(1), a.data<T>(), a.dim(1), b.data<T>(), b.dim(1),
                  add ? T(1) : T(0), out.data<T>(), n);
  });
}

}  // namespace fulcrum::ops
