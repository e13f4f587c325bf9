#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/expert_load_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void accumulate_kernel(std::int64_t n, std::int64_t* total, const std::int64_t* counts) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) total[i] += counts[i];
}

// One block.
__global__ void follow_kernel(int experts, float rate, const std::int64_t* load, float* bias) {
  __shared__ unsigned long long total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  unsigned long long sum = 0;
  for (int e = threadIdx.x; e < experts; e += kThreads) {
    sum += static_cast<unsigned long long>(load[e]);
  }
  atomicAdd(&total, sum);
  __syncthreads();
  for (int e = threadIdx.x; e < experts; e += kThreads) {
    const std::int64_t excess = load[e] * experts - static_cast<std::int64_t>(total);
    if (excess != 0) bias[e] += excess < 0 ? rate : -rate;
  }
}

}  // namespace

void accumulate_counts(const Tensor& total, const Tensor& counts) {
  const std::int64_t n = total.numel();
  if (n == 0) return;
  accumulate_kernel<<<static_cast<unsigned>(ceil_div(n, kThreads)), kThreads, 0,
                      compute_stream()>>>(n, device_data<std::int64_t>(total),
                                          device_data<std::int64_t>(counts));
  FULCRUM_CUDA_LAUNCHED();
}

void follow_load(const Tensor& bias, const Tensor& load, float rate) {
  if (bias.numel() == 0) return;
  follow_kernel<<<1, kThreads, 0, compute_stream()>>>(static_cast<int>(bias.numel()), rate,
                                                      device_data<std::int64_t>(load),
                                                      device_data<float>(bias));
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
