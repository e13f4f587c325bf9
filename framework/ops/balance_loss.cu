#include "framework/ops/balance_loss_cuda.h"
#include "framework/ops/score_rows.cuh"
#include "framework/ops/warp_top_k.cuh"

namespace fulcrum::ops::cuda {
namespace {

using namespace score_rows;

// One block. of_expert: counts are of experts, else of groups.
__global__ void __launch_bounds__(kThreads)
    group_coefficients_kernel(const std::int64_t* counts, bool of_expert, int experts,
                              int per_group, double factor, float* c) {
  for (int e = threadIdx.x; e < experts; e += kThreads) {
    const int group = e / per_group;
    std::int64_t sum = 0;
    if (of_expert) {
      for (int i = 0; i < per_group; ++i) sum += counts[group * per_group + i];
    } else {
      sum = counts[group];
    }
    c[e] = static_cast<float>(factor * static_cast<double>(sum));
  }
}

// Blocks of a column take a sequence; counts i32 [sequences, E] start at zero.
template <int kPerLane>
__global__ void __launch_bounds__(kThreads)
    count_top_kernel(const float* scores, std::int64_t length, int experts, int top_k,
                     std::int32_t* counts) {
  extern __shared__ int histogram[];  // [experts]
  for (int e = threadIdx.x; e < experts; e += kThreads) histogram[e] = 0;
  __syncthreads();
  const int lane = threadIdx.x % 32;
  const float* sequence = scores + static_cast<std::int64_t>(blockIdx.y) * length * experts;
  for (std::int64_t t = first_token(); t < length; t += token_stride()) {
    float s[kPerLane];
    load_row(sequence + t * experts, experts, 0.0f, s);
    WarpTopK<kPerLane> top;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) top.key[i] = i * 32 + lane < experts ? order_key(s[i]) : 0;
    for (int j = 0; j < top_k; ++j) {
      const int e = top.pop();
      if (lane == 0) atomicAdd(&histogram[e], 1);
    }
  }
  __syncthreads();
  for (int e = threadIdx.x; e < experts; e += kThreads) {
    if (histogram[e] != 0) atomicAdd(&counts[blockIdx.y * experts + e], histogram[e]);
  }
}

__global__ void __launch_bounds__(kThreads)
    scale_counts_kernel(const std::int32_t* counts, std::int64_t size, float factor, float* c) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < size) c[i] = factor * static_cast<float>(counts[i]);
}

__global__ void __launch_bounds__(kThreads)
    linear_loss_kernel(const float* scores, const float* c, std::int64_t rows_per_set,
                       std::int64_t n, int experts, double* of_blocks, float* loss) {
  const int lane = threadIdx.x % 32;
  double sum = 0.0;
  for (std::int64_t t = first_token(); t < n; t += token_stride()) {
    const float* row = scores + t * experts;
    const float* factor = c + t / rows_per_set * experts;
    float dot = 0.0f;
    for (int e = lane; e < experts; e += 32) dot += factor[e] * row[e];
    sum += static_cast<double>(dot);
  }
  grid_sum(sum, 1.0, of_blocks, loss);
}

__global__ void __launch_bounds__(kThreads)
    linear_loss_backward_kernel(const float* c, std::int64_t rows_per_set, const float* seed,
                                std::int64_t n, int experts, float* ds, bool add) {
  const int lane = threadIdx.x % 32;
  const float g = *seed;
  for (std::int64_t t = first_token(); t < n; t += token_stride()) {
    const float* factor = c + t / rows_per_set * experts;
    float* row = ds + t * experts;
    for (int e = lane; e < experts; e += 32) {
      row[e] = add ? row[e] + g * factor[e] : g * factor[e];
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    group_tokens_kernel(const std::int32_t* experts, std::int64_t n, int k, int per_group,
                        int groups, unsigned long long* counts) {
  extern __shared__ int histogram[];  // [groups]
  for (int g = threadIdx.x; g < groups; g += kThreads) histogram[g] = 0;
  __syncthreads();
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; t < n;
       t += stride) {
    const std::int32_t* id = experts + t * k;
    for (int j = 0; j < k; ++j) {
      if (id[j] < 0) continue;
      const int group = id[j] / per_group;
      bool seen = false;
      for (int i = 0; i < j; ++i) seen = seen || (id[i] >= 0 && id[i] / per_group == group);
      if (!seen) atomicAdd(&histogram[group], 1);
    }
  }
  __syncthreads();
  for (int g = threadIdx.x; g < groups; g += kThreads) {
    if (histogram[g] != 0) atomicAdd(&counts[g], static_cast<unsigned long long>(histogram[g]));
  }
}

unsigned long long* counters(const Tensor& counts) {
  return reinterpret_cast<unsigned long long*>(device_data<std::int64_t>(counts));
}

}  // namespace

void group_coefficients(const Tensor& counts, std::int64_t groups, double factor, const Tensor& c) {
  const int experts = experts_of(c);
  group_coefficients_kernel<<<1, kThreads, 0, compute_stream()>>>(
      device_data<std::int64_t>(counts), counts.numel() == experts, experts,
      experts / static_cast<int>(groups), factor, device_data<float>(c));
  FULCRUM_CUDA_LAUNCHED();
}

void sequence_coefficients(const Tensor& scores, std::int64_t sequence_length, std::int64_t top_k,
                           double factor, const Tensor& c) {
  if (c.numel() == 0) return;
  const auto sequences = static_cast<unsigned>(c.dim(0));
  const int experts = experts_of(scores);
  const Tensor counts = Tensor::zeros(c.shape(), DType::i32, c.device());
  with_row_size("sequence_balance_loss", experts, [&]<int kPerLane>() {
    // about as many blocks as fill the device, and at least one a sequence
    const dim3 grid(blocks_for(sequence_length, ceil_div(8 * multiprocessors(), sequences)),
                    sequences);
    count_top_kernel<kPerLane><<<grid, kThreads, experts * sizeof(int), compute_stream()>>>(
        device_data<float>(scores), sequence_length, experts, static_cast<int>(top_k),
        device_data<std::int32_t>(counts));
  });
  FULCRUM_CUDA_LAUNCHED();
  scale_counts_kernel<<<static_cast<unsigned>(ceil_div(c.numel(), kThreads)), kThreads, 0,
                        compute_stream()>>>(device_data<std::int32_t>(counts), c.numel(),
                                            static_cast<float>(factor), device_data<float>(c));
  FULCRUM_CUDA_LAUNCHED();
}

void linear_loss(const Tensor& scores, const Tensor& c, std::int64_t rows_per_set,
                 const Tensor& loss) {
  const std::int64_t n = scores.dim(0);
  if (n == 0) return loss.zero();
  linear_loss_kernel<<<blocks_for(n, kSumBlocks), kThreads, 0, compute_stream()>>>(
      device_data<float>(scores), device_data<float>(c), rows_per_set, n, experts_of(scores),
      device_data<double>(sums_of_blocks(scores)), device_data<float>(loss));
  FULCRUM_CUDA_LAUNCHED();
}

void linear_loss_backward(const Tensor& c, std::int64_t rows_per_set, const Tensor& seed,
                          const Tensor& ds, bool add) {
  const std::int64_t n = ds.dim(0);
  if (n == 0) return;
  linear_loss_backward_kernel<<<blocks_for(n), kThreads, 0, compute_stream()>>>(
      device_data<float>(c), rows_per_set, device_data<float>(seed), n, experts_of(ds),
      device_data<float>(ds), add);
  FULCRUM_CUDA_LAUNCHED();
}

void group_token_counts(const Tensor& experts, std::int64_t per_group, const Tensor& counts) {
  counts.zero();
  const std::int64_t n = experts.dim(0);
  if (n == 0) return;
  const auto groups = static_cast<int>(counts.numel());
  FULCRUM_REQUIRE(groups <= kMostExperts, "group_token_counts: CUDA takes up to {} groups; got {}",
                  kMostExperts, groups);
  const auto blocks =
      static_cast<unsigned>(std::min<std::int64_t>(ceil_div(n, kThreads), 2 * multiprocessors()));
  group_tokens_kernel<<<blocks, kThreads, groups * sizeof(int), compute_stream()>>>(
      device_data<std::int32_t>(experts), n, static_cast<int>(experts.dim(1)),
      static_cast<int>(per_group), groups, counters(counts));
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
