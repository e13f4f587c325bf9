#pragma once
// What kernels share: element types, wide loads, reductions over a block, dispatch by dtype.
//
// A kernel file names its element type T (float or __nv_bfloat16), reads and writes 16 bytes a
// thread where rows allow, and computes in f32. Sums over a block are formed in a fixed order, so
// that the same launch gives the same bits.

#include <cuda_bf16.h>

#include <cstdint>

#include "framework/core/cuda_check.h"
#include "framework/core/cuda_stream.h"
#include "framework/core/tensor.h"

// After a launch.
#define FULCRUM_CUDA_LAUNCHED() FULCRUM_CUDA_CHECK(cudaGetLastError())

namespace fulcrum {

template <>
struct DTypeOf<__nv_bfloat16> {
  static constexpr DType value = DType::bf16;
};

// Elements of a device tensor; T must match the dtype. Null when undefined.
template <class T>
T* device_data(const Tensor& x) {
  if (!x.defined()) return nullptr;
  FULCRUM_REQUIRE(x.dtype() == dtype_of<T> && x.device().is_cuda(),
                  "device_data<{}> of a {} tensor {} on {}", name_of(dtype_of<T>),
                  name_of(x.dtype()), x.shape(), x.device());
  return static_cast<T*>(x.raw());
}

// Calls fn.template operator()<T>() with T = float or __nv_bfloat16.
template <class Fn>
decltype(auto) dispatch_cuda(const char* op, DType dtype, Fn&& fn) {
  if (dtype == DType::bf16) return fn.template operator()<__nv_bfloat16>();
  FULCRUM_REQUIRE(dtype == DType::f32, "{}: CUDA computes in f32 or bf16; got {}", op,
                  name_of(dtype));
  return fn.template operator()<float>();
}

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Multiprocessors of the device.
int multiprocessors();

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ inline T from_float(float x) {
  if constexpr (sizeof(T) == 2) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}

// N consecutive elements that one thread moves at once; the address is a multiple of their size.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];

  __device__ static Pack load(const T* p) { return *reinterpret_cast<const Pack*>(p); }
  __device__ void store(T* p) const { *reinterpret_cast<Pack*>(p) = *this; }
  __device__ float operator[](int i) const { return to_float(values[i]); }
  __device__ void set(int i, float x) { values[i] = from_float<T>(x); }
};

// Elements in 16 bytes.
template <class T>
inline constexpr int kWide = 16 / static_cast<int>(sizeof(T));

// Whether packs of so many elements can be read from this address on.
template <class T>
bool is_aligned(const T* p, int elements) {
  return reinterpret_cast<std::uintptr_t>(p) % (elements * sizeof(T)) == 0;
}

// Whether rows of this width, starting at this address, can be read 16 bytes at a time.
template <class T>
bool is_wide(const void* p, std::int64_t width) {
  return width % kWide<T> == 0 && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

// V is float or double.
template <class V>
__device__ inline V warp_sum(V x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  }
  return x;
}

// Sum over a block of kThreads, a multiple of 32 (at most 1024), for every thread. The shared
// memory may be used again at once.
template <int kThreads, class V>
__device__ inline V block_sum(V x) {
  constexpr int kWarps = kThreads / 32;
  x = warp_sum(x);
  if constexpr (kWarps == 1) return x;
  __shared__ V partial[kWarps];
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  x = warp_sum(threadIdx.x % 32 < kWarps ? partial[threadIdx.x % 32] : V(0));
  __syncthreads();
  return x;
}

template <int kThreads>
__device__ inline float block_max(float x) {
  constexpr int kWarps = kThreads / 32;
  x = warp_max(x);
  if constexpr (kWarps == 1) return x;
  __shared__ float partial[kWarps];
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  x = warp_max(threadIdx.x % 32 < kWarps ? partial[threadIdx.x % 32] : -INFINITY);
  __syncthreads();
  return x;
}

}  // namespace fulcrum
