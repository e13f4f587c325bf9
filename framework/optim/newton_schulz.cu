#include <algorithm>
#include <utility>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/gemm_cuda.h"
#include "framework/optim/newton_schulz.h"
#include "framework/optim/newton_schulz_cuda.h"

namespace fulcrum::cuda {
namespace {

constexpr int kThreads = 256;

// b = A·identity + B·a + C·b for matrices [n, n]. One product with b then does what the iteration
// writes as two terms.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    polynomial_kernel(const T* a, T* b, std::int64_t elements, std::int64_t n) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (i >= elements) return;
  const std::int64_t row = i / n;
  const std::int64_t on_diagonal =
      row % n - (i - row * n);  // in this pack, where it is below kWidth
  const auto first = Pack<T, kWidth>::load(a + i);
  auto second = Pack<T, kWidth>::load(b + i);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const float sum = static_cast<float>(kNewtonSchulzB) * first[k] +
                      static_cast<float>(kNewtonSchulzC) * second[k];
    second.set(k, k == on_diagonal ? sum + static_cast<float>(kNewtonSchulzA) : sum);
  }
  second.store(b + i);
}

template <class T, int kWidth>
void launch_polynomial(const Tensor& a, const Tensor& b) {
  const auto blocks = static_cast<unsigned>(ceil_div(a.numel(), kThreads * kWidth));
  polynomial_kernel<T, kWidth><<<blocks, kThreads, 0, compute_stream()>>>(
      device_data<T>(a), device_data<T>(b), a.numel(), a.dim(2));
  FULCRUM_CUDA_LAUNCHED();
}

void polynomial(const Tensor& a, const Tensor& b) {
  dispatch_cuda("newton_schulz", a.dtype(), [&]<class T>() {
    if (a.dim(2) % kWide<T> == 0) {
      launch_polynomial<T, kWide<T>>(a, b);
    } else {
      launch_polynomial<T, 1>(a, b);
    }
  });
}

}  // namespace

Tensor orthogonalize(const Tensor& x, std::int64_t iterations) {
  const std::int64_t small = std::min(x.dim(1), x.dim(2));
  const bool wide = x.dim(1) <= x.dim(2);
  const Shape square{x.dim(0), small, small};
  const Tensor a = Tensor::empty(square, x.dtype(), x.device());
  const Tensor b = Tensor::empty(square, x.dtype(), x.device());
  Tensor from = x;
  Tensor to = Tensor::empty_like(x);
  for (std::int64_t k = 0; k < iterations; ++k) {
    // A from the smaller side: x·xᵀ, or xᵀ·x for a tall matrix.
    ops::cuda::multiply_batched(from, !wide, from, wide, a, 1.0f, 0.0f);
    ops::cuda::multiply_batched(a, false, a, false, b, 1.0f, 0.0f);
    polynomial(a, b);
    if (wide) {
      ops::cuda::multiply_batched(b, false, from, false, to, 1.0f, 0.0f);
    } else {
      ops::cuda::multiply_batched(from, false, b, false, to, 1.0f, 0.0f);
    }
    std::swap(from, to);
  }
  return from;
}

}  // namespace fulcrum::cuda
