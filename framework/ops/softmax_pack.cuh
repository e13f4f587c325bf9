#pragma once
// Logits as a softmax of rows holds them between their sum and their gradient.

#include "framework/core/cuda_kernel.cuh"

namespace fulcrum::ops::cuda::softmax {

// 16 bytes of a row, held as words: unpacked where used, since the elements of a whole row in f32
// would not fit the registers.
template <class T>
struct Held {
  static constexpr int kN = kWide<T>;
  std::uint32_t words[4];

  // Volatile: the loads of a row are all to be on their way before anything is waited for.
  __device__ static Held load(const T* p) {
    Held v;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.words[0]), "=r"(v.words[1]), "=r"(v.words[2]), "=r"(v.words[3])
                 : "l"(p));
    return v;
  }
  __device__ void store(T* p) const {
    *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
  }
  __device__ float operator[](int i) const {
    if constexpr (sizeof(T) == 4) return __uint_as_float(words[i]);
    return __uint_as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xffff0000u);
  }
  template <class Fn>
  __device__ void replace(Fn&& fn) {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if constexpr (sizeof(T) == 4) {
        words[w] = __float_as_uint(fn((*this)[w]));
      } else {
        const __nv_bfloat162 pair =
            __floats2bfloat162_rn(fn((*this)[2 * w]), fn((*this)[2 * w + 1]));
        words[w] = reinterpret_cast<const std::uint32_t&>(pair);
      }
    }
  }
  // Columns beyond the vocabulary, in its last pack, become −∞.
  __device__ void mask_tail(int p, int vocabulary) {
    if ((p + 1) * kN <= vocabulary) return;
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      if (p * kN + i < vocabulary) continue;
      if constexpr (sizeof(T) == 4) {
        words[i] = 0xff800000u;
      } else {
        words[i / 2] = i % 2 == 0 ? (words[i / 2] & 0xffff0000u) | 0xff80u
                                  : (words[i / 2] & 0xffffu) | 0xff800000u;
      }
    }
  }
  __device__ float largest() const {
    if constexpr (sizeof(T) == 4) {
      return fmaxf(fmaxf((*this)[0], (*this)[1]), fmaxf((*this)[2], (*this)[3]));
    } else {
      const auto pair = [&](int w) { return reinterpret_cast<const __nv_bfloat162&>(words[w]); };
      const __nv_bfloat162 m = __hmax2(__hmax2(pair(0), pair(1)), __hmax2(pair(2), pair(3)));
      return fmaxf(__low2float(m), __high2float(m));
    }
  }
  // Makes the compiler forget what it unpacked.
  __device__ void forget() {
#pragma unroll
    for (std::uint32_t& word : words) asm volatile("" : "+r"(word));
  }
};

}  // namespace fulcrum::ops::cuda::softmax
