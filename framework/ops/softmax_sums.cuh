#pragma once
// Sums of exponentials over a row, by a block or by a cluster of blocks that divide the row and
// exchange their sums through distributed shared memory.

#include <cooperative_groups.h>

#include "framework/core/cuda_kernel.cuh"

namespace fulcrum::ops::cuda::softmax {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kMostBlocks = 8;  // of a cluster, on every chip that has them
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLowest = -1e30f;  // finite: the difference of two is not NaN

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Σ exp(x − top) of some logits x, formed as Σ 2^(x · log₂e − top · log₂e) with the second product
// rounded, the same for every sum with this top.
struct Partial {
  float top;
  float sum;

  // Rounded, never part of a fused multiply-add: equal tops must differ by nothing.
  __device__ float offset() const { return __fmul_rn(top, kLog2E); }
  // The same sum over another top.
  __device__ float over(float other) const {
    return sum * exp2_fast(__fsub_rn(offset(), __fmul_rn(other, kLog2E)));
  }
};

__device__ inline Partial warp_total(Partial p) {
  const float top = warp_max(p.top);
  return {top, warp_sum(p.over(top))};
}

// Partial sums of all warps of a cluster of `blocks`, of which this block is `rank`; every thread
// gets the total. Nobody writes into another block's memory before the cluster has begun, which
// kClustered callers have announced by arriving at its barrier, or after the second barrier.
template <bool kClustered>
__device__ Partial total_of(Partial mine, int rank, int blocks) {
  __shared__ Partial partials[kMostBlocks * kWarps];
  const int lane = threadIdx.x % 32;
  const int slot = rank * kWarps + threadIdx.x / 32;
  mine = warp_total(mine);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  if constexpr (kClustered) {
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
    if (lane < blocks) *cluster.map_shared_rank(&partials[slot], lane) = mine;
    cluster.sync();
  } else
#endif
  {
    if (lane == 0) partials[slot] = mine;
    __syncthreads();
  }
  Partial total{kLowest, 0.0f};
#pragma unroll
  for (int i = 0; i < kMostBlocks * kWarps; i += 32) {
    if (i + lane >= blocks * kWarps) continue;
    const Partial p = partials[i + lane];
    const float top = fmaxf(total.top, p.top);
    total = {top, total.over(top) + p.over(top)};
  }
  return warp_total(total);
}

}  // namespace fulcrum::ops::cuda::softmax
