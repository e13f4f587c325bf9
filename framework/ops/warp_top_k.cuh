#pragma once
// The largest of a row that a warp holds in registers: number e of the row is at index e / 32 of
// lane e % 32. The order is that of top_k.h: equal numbers by id, the lower first, and NaN as −∞.

#include "framework/core/cuda_kernel.cuh"

namespace fulcrum::ops::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
// Longest row: 32 registers a lane.
constexpr std::int64_t kMostExperts = 1024;

// An integer of the same order as x; above 0, which stands for "not there".
__device__ inline std::uint32_t order_key(float x) {
  if (isnan(x)) x = -INFINITY;
  const std::uint32_t bits = __float_as_uint(x + 0.0f);  // −0 becomes 0
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

// Reads a row, with fill behind its end.
template <int kPerLane>
__device__ inline void load_row(const float* row, int size, float fill, float (&x)[kPerLane]) {
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int e = i * 32 + static_cast<int>(threadIdx.x % 32);
    x[i] = e < size ? row[e] : fill;
  }
}

// x[i] for an i that is the same in all lanes, without leaving registers.
template <int kPerLane>
__device__ inline float at(const float (&x)[kPerLane], int i) {
  float value = x[0];
#pragma unroll
  for (int k = 1; k < kPerLane; ++k) value = k == i ? x[k] : value;
  return value;
}

template <int kPerLane>
struct WarpTopK {
  std::uint32_t key[kPerLane];

  // Id of the largest that is left, in all lanes, and takes it out.
  __device__ int pop() {
    const int lane = static_cast<int>(threadIdx.x % 32);
    std::uint32_t best = key[0];
    int index = 0;
#pragma unroll
    for (int i = 1; i < kPerLane; ++i) {
      if (key[i] > best) {
        best = key[i];
        index = i;
      }
    }
    const std::uint32_t largest = __reduce_max_sync(kAllLanes, best);
    const auto candidate = static_cast<unsigned>(index * 32 + lane);
    const unsigned id = __reduce_min_sync(kAllLanes, best == largest ? candidate : kAllLanes);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (id == static_cast<unsigned>(i * 32 + lane)) key[i] = 0;
    }
    return static_cast<int>(id);
  }
};

// Calls fn.operator()<kPerLane>() with enough registers a lane for a row of this size.
template <class Fn>
void with_row_size(const char* op, std::int64_t size, Fn&& fn) {
  FULCRUM_REQUIRE(size <= kMostExperts, "{}: CUDA takes up to {} experts; got {}", op, kMostExperts,
                  size);
  if (size <= 32) {
    fn.template operator()<1>();
  } else if (size <= 64) {
    fn.template operator()<2>();
  } else if (size <= 128) {
    fn.template operator()<4>();
  } else if (size <= 256) {
    fn.template operator()<8>();
  } else if (size <= 512) {
    fn.template operator()<16>();
  } else {
    fn.template operator()<32>();
  }
}

}  // namespace fulcrum::ops::cuda
