#pragma once
// How kernels go over rows of scores [tokens, experts], and sums over all tokens in a fixed order.

#include <algorithm>

#include "framework/core/cuda_kernel.cuh"

namespace fulcrum::ops::cuda::score_rows {

// A warp takes a token at a time and walks over tokens with a fixed stride.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;

__device__ inline std::int64_t first_token() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
}
__device__ inline std::int64_t token_stride() {
  return static_cast<std::int64_t>(gridDim.x) * kWarps;
}

inline unsigned blocks_for(std::int64_t tokens, std::int64_t most) {
  return static_cast<unsigned>(std::min(ceil_div(tokens, kWarps), most));
}
inline unsigned blocks_for(std::int64_t tokens) {
  return blocks_for(tokens, 8 * multiprocessors());
}

inline int experts_of(const Tensor& scores) { return static_cast<int>(scores.dim(1)); }

// Blocks of a sum over tokens: as many as there are parts of it, whatever the device.
constexpr int kSumBlocks = 256;

inline Tensor sums_of_blocks(const Tensor& scores) {
  return Tensor::empty({kSumBlocks}, DType::f64, scores.device());
}

__device__ inline double warp_sum(double x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

// Thread 0 of the block receives the sum.
__device__ inline double block_sum(double x) {
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
static __device__ unsigned blocks_done;

// total = factor · the sum of x over all threads of the grid: the last block to arrive adds the
// blocks' sums in order.
static __device__ void grid_sum(double x, double factor, double* of_blocks, float* total) {
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

}  // namespace fulcrum::ops::cuda::score_rows
