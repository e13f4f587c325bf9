#pragma once
// Sums over a group of warps that need one barrier.

#include "framework/core/cuda_kernel.cuh"

namespace fulcrum::ops::cuda {

// Adds kCount values (at most 4) of each thread over the warps of a group, in a fixed order, for
// every thread. The warps' sums are folded so that lane l keeps value l / 8 only, which takes half
// the shuffles of a sum for each.
template <int kCount>
class Dots {
 public:
  static_assert(kCount == 3);

  // Shared memory of a group: the sums of its warps, eight at a time, for two calls, so that one
  // barrier a call is enough.
  __host__ __device__ static int floats(int warps) { return 2 * of_call(warps); }

  // All threads of the group call it, before a barrier of the block.
  __device__ Dots(float* memory, int barrier, int warps, int thread)
      : memory_(memory), barrier_(barrier), warps_(warps), warp_(thread / 32) {
    for (int i = thread; i < floats(warps); i += warps * 32) memory[i] = 0.0f;
  }

  __device__ void add_up(float (&x)[kCount]) {
    const int lane = threadIdx.x % 32;
    float sum = fold(x, lane);
    if (warps_ > 1) {
      float* const sums = memory_ + at_;
      at_ = of_call(warps_) - at_;
      if (lane % 8 == 0) sums[warp_ / 8 * 32 + lane + warp_ % 8] = sum;
#ifdef __CUDA_ARCH__
      asm volatile("bar.sync %0, %1;" ::"r"(barrier_), "r"(warps_ * 32) : "memory");
#endif
      const float* of_warps = sums + lane;
      sum = *of_warps;
#pragma unroll 1
      for (int w = 8; w < warps_; w += 8) sum += *(of_warps += 32);
      sum = over_eight(sum);
    }
#pragma unroll
    for (int n = 0; n < kCount; ++n) x[n] = __shfl_sync(0xffffffffu, sum, n * 8);
  }

 private:
  __host__ __device__ static int of_call(int warps) { return (warps + 7) / 8 * 32; }

  __device__ static float over_eight(float x) {
#pragma unroll
    for (int offset = 4; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
  }

  // The warp's sum of value lane / 8; of the fourth there is none.
  __device__ static float fold(const float (&x)[kCount], int lane) {
    const bool third = (lane & 16) != 0;  // this half keeps the third value
    float first = third ? x[2] : x[0];
    float second = third ? 0.0f : x[1];
    first += __shfl_xor_sync(0xffffffffu, third ? x[0] : x[2], 16);
    second += __shfl_xor_sync(0xffffffffu, third ? x[1] : 0.0f, 16);
    const bool odd = (lane & 8) != 0;
    const float kept = odd ? second : first;
    return over_eight(kept + __shfl_xor_sync(0xffffffffu, odd ? first : second, 8));
  }

  float* const memory_;
  const int barrier_;
  const int warps_;
  const int warp_;
  int at_ = 0;  // of this call
};

}  // namespace fulcrum::ops::cuda
