#include "framework/optim/newton_schulz.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "framework/ops/gemm.h"

namespace fulcrum {
namespace {

constexpr std::int64_t kParallel = 65536;  // elements from which threads pay

// Rows are summed apart and then in order, so that the number of threads does not matter.
template <class T>
double frobenius(const T* x, std::int64_t rows, std::int64_t cols, T* partial) {
#pragma omp parallel for schedule(static) if (rows * cols > kParallel)
  for (std::int64_t r = 0; r < rows; ++r) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t c = 0; c < cols; ++c) sum += x[r * cols + c] * x[r * cols + c];
    partial[r] = sum;
  }
  double total = 0.0;
  for (std::int64_t r = 0; r < rows; ++r) total += static_cast<double>(partial[r]);
  return std::sqrt(total);
}

}  // namespace

std::int64_t newton_schulz_scratch(std::int64_t rows, std::int64_t cols) {
  const std::int64_t small = std::min(rows, cols);
  return rows * cols + 2 * small * small + rows;
}

template <class T>
void orthogonalize(T* x, std::int64_t rows, std::int64_t cols, std::int64_t iterations,
                   T* scratch) {
  const bool wide = rows <= cols;
  const std::int64_t small = std::min(rows, cols);
  const std::int64_t n = rows * cols;
  T* next = scratch;
  T* a = next + n;
  T* b = a + small * small;
  const double norm = frobenius(x, rows, cols, b + small * small);
  if (norm == 0.0) return;
  const T inverse = static_cast<T>(1.0 / norm);
#pragma omp parallel for simd schedule(static) if (n > kParallel)
  for (std::int64_t i = 0; i < n; ++i) x[i] *= inverse;

  T* from = x;
  T* to = next;
  for (std::int64_t k = 0; k < iterations; ++k) {
    // A from the smaller side: x·xᵀ, or xᵀ·x for a tall matrix.
    ops::gemm<T>(!wide, wide, small, small, std::max(rows, cols), T{1}, from, cols, from, cols,
                 T{0}, a, small);
    std::copy_n(a, small * small, b);
    ops::gemm<T>(false, false, small, small, small, static_cast<T>(kNewtonSchulzC), a, small, a,
                 small, static_cast<T>(kNewtonSchulzB), b, small);
    std::copy_n(from, n, to);
    if (wide) {
      ops::gemm<T>(false, false, rows, cols, small, T{1}, b, small, from, cols,
                   static_cast<T>(kNewtonSchulzA), to, cols);
    } else {
      ops::gemm<T>(false, false, rows, cols, small, T{1}, from, cols, b, small,
                   static_cast<T>(kNewtonSchulzA), to, cols);
    }
    std::swap(from, to);
  }
  if (from != x) std::copy_n(from, n, x);
}

template void orthogonalize<float>(float*, std::int64_t, std::int64_t, std::int64_t, float*);
template void orthogonalize<double>(double*, std::int64_t, std::int64_t, std::int64_t, double*);

}  // namespace fulcrum
