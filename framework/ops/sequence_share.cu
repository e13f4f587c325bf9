#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/sequence_share_cuda.h"
#include "framework/ops/sequence_share_kernel.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 512;

// A block takes a sequence.
__global__ void __launch_bounds__(kThreads)
    share_kernel(const std::int32_t* ids, std::int64_t length, std::uint64_t threshold,
                 std::uint8_t* chosen) {
  __shared__ unsigned long long content;
  if (threadIdx.x == 0) content = 0;
  __syncthreads();
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * length;
  std::uint64_t sum = 0;
  for (std::int64_t i = threadIdx.x; i < length; i += kThreads) {
    sum += content_of(i, ids[first + i]);
  }
  atomicAdd(&content, static_cast<unsigned long long>(sum));
  __syncthreads();
  const std::uint8_t drawn = is_drawn(content, threshold) ? 1 : 0;
  for (std::int64_t i = threadIdx.x; i < length; i += kThreads) chosen[first + i] = drawn;
}

}  // namespace

void tokens_of_share(const Tensor& ids, std::uint64_t threshold, const Tensor& chosen) {
  if (ids.numel() == 0) return;
  share_kernel<<<static_cast<unsigned>(ids.dim(0)), kThreads, 0, compute_stream()>>>(
      device_data<std::int32_t>(ids), ids.dim(1), threshold, device_data<std::uint8_t>(chosen));
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
