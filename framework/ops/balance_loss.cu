#include "framework/ops/balance_loss_cuda.h"
#include "framework/ops/warp_top_k.cuh"

namespace fulcrum::ops::cuda {
namespace {

// A warp takes a token at a time and walks over tokens with a fixed stride.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
// Of a sum over tokens: as many as there are parts of it, whatever the device.
constexpr int kSumBlocks = 256;
constexpr float kSumEps = 1e-20f;

__device__ inline std::int64_t first_token() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
}
__device__ inline std::int64_t token_stride() {
  return static_cast<std::int64_t>(gridDim.x) * kWarps;
}

unsigned blocks_for(std::int64_t tokens, std::int64_t most) {
  return static_cast<unsigned>(std::min(ceil_div(tokens, kWarps), most));
}
unsigned blocks_for(std::int64_t tokens) { return blocks_for(tokens, 8 * multiprocessors()); }

__device__ inline double warp_sum(double x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

// Thread 0 of the block receives the sum.
__device__ double block_sum(double x) {
  __shared__ double partial[kWarps];
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  double sum = 0.0;
  if (threadIdx.x == 0) {
    for (const double p : partial) sum += p;
  }
  return sum;
}

// Blocks of the sum that is under way that are done; 0 between launches, which follow each other on
// one stream.
__device__ unsigned blocks_done;

// total = factor · the sum of x over all threads of the grid: the last block to arrive adds the
// blocks' sums in order.
__device__ void grid_sum(double x, double factor, double* of_blocks, float* total) {
  __shared__ bool last;
  const double sum = block_sum(x);
  if (threadIdx.x == 0) {
    of_blocks[blockIdx.x] = sum;
    __threadfence();
    last = atomicInc(&blocks_done, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  double mine = 0.0;
  for (unsigned b = threadIdx.x; b < gridDim.x; b += kThreads) {
    mine += *static_cast<volatile double*>(of_blocks + b);
  }
  const double all = block_sum(mine);
  if (threadIdx.x == 0) *total = static_cast<float>(factor * all);
}

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

unsigned long long* counters(const Tensor& counts) {
  return reinterpret_cast<unsigned long long*>(device_data<std::int64_t>(counts));
}

int experts_of(const Tensor& scores) { return static_cast<int>(scores.dim(1)); }

Tensor sums_of_blocks(const Tensor& scores) {
  return Tensor::empty({kSumBlocks}, DType::f64, scores.device());
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
