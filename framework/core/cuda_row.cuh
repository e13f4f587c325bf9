#pragma once
// Rows in quads of elements, for kernels that keep rows in registers.
//
// A row is taken by a group of `lanes` lanes, a power of two that divides a block; lane l holds
// quads l, l + lanes, …, kQuads of them. The choice leaves few lanes idle: 384 elements are 96
// quads, which 32 lanes take with 3 quads each. (Eight bf16 at a time would need twice the
// registers and halve the threads that a multiprocessor holds.)

#include <algorithm>
#include <initializer_list>

#include "framework/core/cuda_kernel.cuh"

namespace fulcrum {

constexpr int kRowThreads = 256;  // of a block; a group is at most all of them
constexpr int kQuad = 4;          // elements
constexpr int kMostRowQuads = 5;  // of a lane

// Four neighbouring elements as they lie in memory: bf16 stay packed until they are used.
template <class T>
struct Quad;

template <>
struct Quad<float> {
  float4 raw;

  __device__ static Quad load(const float* p) { return {*reinterpret_cast<const float4*>(p)}; }
  __device__ static Quad of(const float (&x)[kQuad]) {
    return {make_float4(x[0], x[1], x[2], x[3])};
  }
  __device__ void store(float* p) const { *reinterpret_cast<float4*>(p) = raw; }
  __device__ float operator[](int i) const {
    return i == 0 ? raw.x : i == 1 ? raw.y : i == 2 ? raw.z : raw.w;
  }
};

template <>
struct Quad<__nv_bfloat16> {
  uint2 raw;

  __device__ static Quad load(const __nv_bfloat16* p) {
    return {*reinterpret_cast<const uint2*>(p)};
  }
  __device__ static Quad of(const float (&x)[kQuad]) {
    return {make_uint2(pair(x[0], x[1]), pair(x[2], x[3]))};
  }
  __device__ void store(__nv_bfloat16* p) const { *reinterpret_cast<uint2*>(p) = raw; }
  __device__ float operator[](int i) const {
    const std::uint32_t two = i < 2 ? raw.x : raw.y;
    return __uint_as_float(i % 2 == 0 ? two << 16 : two & 0xffff0000u);
  }

 private:
  __device__ static std::uint32_t pair(float low, float high) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&two);
  }
};

struct RowGroup {
  int lanes = 0;  // 0: rows do not fit, or cannot be read in quads
  int quads_of_lane = 0;

  int groups_of_block() const { return kRowThreads / lanes; }
};

// Whether rows of this width, starting at these addresses (which may be null), divide into quads.
template <class T>
bool in_quads(std::int64_t width, std::initializer_list<const T*> pointers) {
  return width % kQuad == 0 && std::all_of(pointers.begin(), pointers.end(), [](const T* p) {
           return reinterpret_cast<std::uintptr_t>(p) % sizeof(Quad<T>) == 0;
         });
}

// Fewest idle lanes; of equals, the smallest group of at least 8 lanes.
template <class T>
RowGroup row_group(std::int64_t width, std::initializer_list<const T*> pointers) {
  if (!in_quads(width, pointers)) return {};
  const std::int64_t quads = width / kQuad;
  RowGroup best;
  for (int lanes = 8; lanes <= kRowThreads; lanes *= 2) {
    const std::int64_t each = ceil_div(quads, lanes);
    if (each > kMostRowQuads) continue;
    if (best.lanes == 0 || lanes * each < best.lanes * best.quads_of_lane) {
      best = {lanes, static_cast<int>(each)};
    }
  }
  return best;
}

// Calls fn<kQuads>() with the quads of a lane.
template <class Fn>
void with_quads_of_lane(const RowGroup& group, Fn&& fn) {
  static_assert(kMostRowQuads == 5);
  switch (group.quads_of_lane) {
    case 1:
      return fn.template operator()<1>();
    case 2:
      return fn.template operator()<2>();
    case 3:
      return fn.template operator()<3>();
    case 4:
      return fn.template operator()<4>();
    default:
      return fn.template operator()<5>();
  }
}

template <class T, int kQuads>
struct GroupRow {
  Quad<T> quads[kQuads];

  __device__ void load(const T* row, int quads_of_row, int lane, int lanes) {
#pragma unroll
    for (int k = 0; k < kQuads; ++k) {
      const int i = k * lanes + lane;
      if (i < quads_of_row) quads[k] = Quad<T>::load(row + i * kQuad);
    }
  }
};

// Replaces each of x by its sum over the group, for every lane. All threads of the block call it;
// parity alternates from call to call, so that one barrier is enough.
template <int kCount>
__device__ inline void group_sums(float (&x)[kCount], int lanes, int parity) {
  __shared__ float partial[2][kRowThreads / 32][kCount];
  const int within = lanes < 32 ? lanes : 32;
  for (int offset = within / 2; offset > 0; offset /= 2) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) x[k] += __shfl_xor_sync(0xffffffffu, x[k], offset);
  }
  if (lanes <= 32) return;
  if (threadIdx.x % 32 == 0) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) partial[parity][threadIdx.x / 32][k] = x[k];
  }
  __syncthreads();
  const int first = threadIdx.x / lanes * (lanes / 32);
#pragma unroll
  for (int k = 0; k < kCount; ++k) x[k] = partial[parity][first][k];
#pragma unroll 1
  for (int w = 1; w < lanes / 32; ++w) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) x[k] += partial[parity][first + w][k];
  }
}

}  // namespace fulcrum
