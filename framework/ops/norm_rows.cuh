#pragma once
// How the kernels of the norm hold rows: kTeam warps take a row together and keep it in registers,
// kPacks packs of 16 bytes a lane.

#include <initializer_list>

#include "framework/core/cuda_kernel.cuh"

namespace fulcrum::ops::cuda {

constexpr int kNormWarps = 8;
constexpr int kNormThreads = kNormWarps * 32;

// The threads of a row.
template <int kTeam>
struct Team {
  static constexpr int kRows = kNormWarps / kTeam;  // of a block at once
  int row = threadIdx.x / (32 * kTeam);             // of these
  int lane = threadIdx.x % (32 * kTeam);

  // Over the team; every thread of the block takes part. parity alternates from call to call, so
  // that one barrier is enough.
  __device__ float sum(float x, int parity) const {
    x = warp_sum(x);
    if constexpr (kTeam > 1) {
      __shared__ float partial[2][kNormWarps];
      if (threadIdx.x % 32 == 0) partial[parity][threadIdx.x / 32] = x;
      __syncthreads();
      x = 0.0f;
#pragma unroll
      for (int w = 0; w < kTeam; ++w) x += partial[parity][row * kTeam + w];
    }
    return x;
  }
};

template <class T, int kTeam, int kPacks>
struct Row {
  Pack<T, kWide<T>> packs[kPacks];

  // First element of pack k of this thread.
  __device__ static int first(const Team<kTeam>& team, int k) {
    return (k * 32 * kTeam + team.lane) * kWide<T>;
  }
  __device__ void load(const T* p, const Team<kTeam>& team, int width) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (first(team, k) < width) packs[k] = Pack<T, kWide<T>>::load(p + first(team, k));
    }
  }
  // Keeps the compiler from holding bf16 as floats, in twice the registers, from their first use to
  // the next.
  __device__ void stay_packed() {
    if constexpr (sizeof(T) == 2) {
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        auto& raw = reinterpret_cast<uint4&>(packs[k]);
        asm volatile("" : "+r"(raw.x), "+r"(raw.y), "+r"(raw.z), "+r"(raw.w));
      }
    }
  }
};

// The weights of a pack of elements, 16 bytes at a time: one by one, with lanes a pack apart, they
// would take the cache longer than the rows take memory.
template <int kN>
struct Weights {
  Pack<float, 4> quads[kN / 4];

  __device__ static Weights load(const float* p) {
    Weights weights;
#pragma unroll
    for (int i = 0; i < kN / 4; ++i) weights.quads[i] = Pack<float, 4>::load(p + 4 * i);
    return weights;
  }
  __device__ float operator[](int i) const { return quads[i / 4].values[i % 4]; }
};

// Calls fn<kTeam, kPacks>() with the smallest team whose lanes hold a row in at most kMost packs
// each (kWidest where all warps of a block hold no more), or returns false when rows do not fit or
// cannot be read in packs.
template <class T, int kMost, int kWidest, class Fn>
bool with_team(int width, const float* weight, std::initializer_list<const T*> rows, Fn&& fn) {
  if (!is_aligned(weight, 4)) return false;
  for (const T* p : rows) {
    if (p != nullptr && !is_wide<T>(p, width)) return false;
  }
  const auto packs = static_cast<int>(ceil_div(width / kWide<T>, 32));  // of a lane of one warp
  static_assert(kMost >= 2 && kMost <= 8 && kWidest >= kMost);
  if (packs <= 1) {
    fn.template operator()<1, 1>();
  } else if (packs <= 2) {
    fn.template operator()<1, 2>();
  } else if (packs <= std::min(4, kMost)) {
    fn.template operator()<1, std::min(4, kMost)>();
  } else if (packs <= kMost) {
    fn.template operator()<1, kMost>();
  } else if (packs <= 2 * kMost) {
    fn.template operator()<2, kMost>();
  } else if (packs <= 4 * kMost) {
    fn.template operator()<4, kMost>();
  } else if (packs <= 8 * kMost) {
    fn.template operator()<8, kMost>();
  } else if (packs <= 8 * kWidest) {
    fn.template operator()<8, kWidest>();
  } else {
    return false;
  }
  return true;
}

}  // namespace fulcrum::ops::cuda
