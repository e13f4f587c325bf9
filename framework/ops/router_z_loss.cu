#include "framework/ops/balance_loss_cuda.h"
#include "framework/ops/score_rows.cuh"

namespace fulcrum::ops::cuda {
namespace {

using namespace score_rows;

__global__ void __launch_bounds__(kThreads)
    z_loss_kernel(const float* logits, std::int64_t n, int experts, double factor, float* lse,
                  double* of_blocks, float* loss) {
  const int lane = threadIdx.x % 32;
  double squares = 0.0;  // lane 0's
  for (std::int64_t t = first_token(); t < n; t += token_stride()) {
    const float* row = logits + t * experts;
    float top = -INFINITY;
    for (int e = lane; e < experts; e += 32) top = fmaxf(top, row[e]);
    top = warp_max(top);
    float sum = 0.0f;
    for (int e = lane; e < experts; e += 32) sum += expf(row[e] - top);
    const float log_sum = top + logf(fulcrum::warp_sum(sum));
    if (lane != 0) continue;
    lse[t] = log_sum;
    squares += static_cast<double>(log_sum) * static_cast<double>(log_sum);
  }
  grid_sum(squares, factor, of_blocks, loss);
}

__global__ void __launch_bounds__(kThreads)
    z_loss_backward_kernel(const float* logits, const float* lse, float factor, const float* seed,
                           std::int64_t n, int experts, float* dx, bool add) {
  const int lane = threadIdx.x % 32;
  const float g = *seed * factor;
  for (std::int64_t t = first_token(); t < n; t += token_stride()) {
    const float log_sum = lse[t];
    const float* row = logits + t * experts;
    float* out = dx + t * experts;
    for (int e = lane; e < experts; e += 32) {
      const float d = g * log_sum * expf(row[e] - log_sum);
      out[e] = add ? out[e] + d : d;
    }
  }
}

}  // namespace

void router_z_loss(const Tensor& logits, double factor, const Tensor& lse, const Tensor& loss) {
  const std::int64_t n = logits.dim(0);
  if (n == 0) return loss.zero();
  z_loss_kernel<<<blocks_for(n, kSumBlocks), kThreads, 0, compute_stream()>>>(
      device_data<float>(logits), n, experts_of(logits), factor, device_data<float>(lse),
      device_data<double>(sums_of_blocks(logits)), device_data<float>(loss));
  FULCRUM_CUDA_LAUNCHED();
}

void router_z_loss_backward(const Tensor& logits, const Tensor& lse, double factor,
                            const Tensor& seed, const Tensor& dx, bool add) {
  const std::int64_t n = logits.dim(0);
  if (n == 0) return;
  z_loss_backward_kernel<<<blocks_for(n), kThreads, 0, compute_stream()>>>(
      device_data<float>(logits), device_data<float>(lse), static_cast<float>(2.0 * factor),
      device_data<float>(seed), n, experts_of(logits), device_data<float>(dx), add);
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
