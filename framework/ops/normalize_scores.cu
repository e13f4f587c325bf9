#include "framework/ops/balance_loss_cuda.h"
#include "framework/ops/score_rows.cuh"

namespace fulcrum::ops::cuda {
namespace {

using namespace score_rows;

constexpr float kSumEps = 1e-20f;

__global__ void __launch_bounds__(kThreads)
    normalize_kernel(const float* scores, std::int64_t n, int experts, float* y, float* inverse) {
  const int lane = threadIdx.x % 32;
  for (std::int64_t t = first_token(); t < n; t += token_stride()) {
    const float* row = scores + t * experts;
    float sum = 0.0f;
    for (int e = lane; e < experts; e += 32) sum += row[e];
    const float scale = 1.0f / (fulcrum::warp_sum(sum) + kSumEps);
    for (int e = lane; e < experts; e += 32) y[t * experts + e] = row[e] * scale;
    if (lane == 0) inverse[t] = scale;
  }
}

__global__ void __launch_bounds__(kThreads)
    normalize_backward_kernel(const float* y, const float* inverse, const float* g, std::int64_t n,
                              int experts, float* ds) {
  const int lane = threadIdx.x % 32;
  for (std::int64_t t = first_token(); t < n; t += token_stride()) {
    const std::int64_t row = t * experts;
    float mean = 0.0f;
    for (int e = lane; e < experts; e += 32) mean += y[row + e] * g[row + e];
    mean = fulcrum::warp_sum(mean);
    const float scale = inverse[t];
    for (int e = lane; e < experts; e += 32) ds[row + e] = (g[row + e] - mean) * scale;
  }
}

}  // namespace

void normalize_scores(const Tensor& scores, const Tensor& y, const Tensor& inverse) {
  const std::int64_t n = scores.dim(0);
  if (n == 0) return;
  normalize_kernel<<<blocks_for(n), kThreads, 0, compute_stream()>>>(
      device_data<float>(scores), n, experts_of(scores), device_data<float>(y),
      device_data<float>(inverse));
  FULCRUM_CUDA_LAUNCHED();
}

void normalize_scores_backward(const Tensor& y, const Tensor& inverse, const Tensor& g,
                               const Tensor& ds) {
  const std::int64_t n = y.dim(0);
  if (n == 0) return;
  normalize_backward_kernel<<<blocks_for(n), kThreads, 0, compute_stream()>>>(
      device_data<float>(y), device_data<float>(inverse), device_data<float>(g), n, experts_of(y),
      device_data<float>(ds));
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
