#include <algorithm>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/cross_entropy.h"
#include "framework/ops/cross_entropy_cuda.h"
#include "framework/ops/gemm_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 1024;

__global__ void __launch_bounds__(kThreads)
    loss_kernel(const float* nll, const float* lse, std::int64_t n, double scale, double z_weight,
                float* loss, double* nll_sum) {
  double sum = 0.0;
  double squares = 0.0;
#pragma unroll 4
  for (std::int64_t t = threadIdx.x; t < n; t += kThreads) {
    sum += static_cast<double>(nll[t]);
    squares += static_cast<double>(lse[t]) * static_cast<double>(lse[t]);
  }
  sum = block_sum<kThreads>(sum);
  squares = block_sum<kThreads>(squares);
  if (threadIdx.x != 0) return;
  *loss = static_cast<float>(scale * (sum + z_weight * squares));
  *nll_sum = sum;
}

}  // namespace

void linear_cross_entropy(const Tensor& hidden, const Tensor& head, const Tensor& targets,
                          double scale, double z_weight, const Tensor& dhidden, const Tensor& dhead,
                          const Tensor& loss, const Tensor& nll_sum) {
  const std::int64_t n = hidden.dim(0);
  const std::int64_t vocabulary = head.dim(0);
  const LogitsChunk chunk =
      cross_entropy_chunk(n, vocabulary, size_of(hidden.dtype()), hidden.device());
  const Tensor logits =
      Tensor::empty({chunk.tokens, chunk.columns}, hidden.dtype(), hidden.device());
  const Tensor nll = Tensor::empty({n}, DType::f32, hidden.device());
  const Tensor lse = Tensor::empty({n}, DType::f32, hidden.device());
  const bool gradient = dhidden.defined() || dhead.defined();
  for (std::int64_t first = 0; first < n; first += chunk.tokens) {
    const std::int64_t end = std::min(n, first + chunk.tokens);
    const Tensor rows = hidden.slice(first, end);
    const Matrix z(logits.slice(0, end - first), vocabulary);
    multiply(rows, false, head, true, z, false);
    softmax_rows(z.tensor, vocabulary, targets.slice(first, end), scale, z_weight, gradient,
                 nll.slice(first, end), lse.slice(first, end));
    if (dhidden.defined()) multiply(z, false, head, false, dhidden.slice(first, end), false);
    if (dhead.defined()) multiply(z, true, rows, false, dhead, first > 0);
  }
  loss_kernel<<<1, kThreads, 0, compute_stream()>>>(
      device_data<float>(nll), device_data<float>(lse), n, scale, z_weight,
      device_data<float>(loss), static_cast<double*>(nll_sum.raw()));
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
