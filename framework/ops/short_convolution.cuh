#pragma once
// What the kernels of the short convolution share.
//
// Fast kernels exist for four taps, as every published model has. Positions that lie a dilation
// apart form a class; within one the taps look at neighbours. So a thread that owns four channels
// and goes from one position of a class to the next holds all that the taps need in registers: the
// three rows before.

#include "framework/core/cuda_row.cuh"
#include "framework/ops/short_convolution_cuda.h"

namespace fulcrum::ops::cuda {

constexpr int kUsualTaps = 4;
constexpr int kBefore = kUsualTaps - 1;  // positions of a class that the taps look back at

template <class T>
struct Convolution {
  std::int32_t positions;  // batch · seq
  std::uint32_t seq;
  int d, taps, dilation;
  const T* x;
  const float* weight;       // [d, taps]
  const float* norm;         // [d]; null: the plain convolution
  const float* scale;        // [positions]; null without the norm or where the next is given
  const float* square_mean;  // [positions], of which and eps the scale is made; may be null
  float eps;
  const std::int32_t* start;  // null: no documents

  // How far tap j looks back.
  __host__ __device__ int reach(int j) const { return (taps - 1 - j) * dilation; }
  // How many positions before p are of its document; −1 beyond the ends, where nothing is seen.
  __device__ int view(std::int32_t p) const {
    if (p < 0 || p >= positions) return -1;
    return static_cast<int>(static_cast<std::uint32_t>(p) % seq) -
           (start == nullptr ? 0 : start[p]);
  }
  __device__ float scale_at(std::int32_t p) const {
    if (p < 0 || p >= positions) return 1.0f;
    if (square_mean != nullptr) return rsqrtf(square_mean[p] + eps);
    return scale == nullptr ? 1.0f : scale[p];
  }
  // A tap's weight times the norm's.
  __device__ float tap(int channel, int j) const {
    const float w = weight[static_cast<std::int64_t>(channel) * taps + j];
    return norm == nullptr ? w : norm[channel] * w;
  }
  // Whether there are kernels for four taps, whose weights can be read 16 bytes at a time.
  bool usual() const {
    return norm != nullptr && taps == kUsualTaps && is_aligned(weight, kQuad) &&
           is_aligned(norm, kQuad);
  }
  // The same of four taps of a quad of channels. One at a time these reads would touch so many
  // lines of the cache that short strips wait for them longer than for their rows.
  __device__ void taps_of(int channel, float (&tap)[kUsualTaps][kQuad]) const {
    const auto norms = Quad<float>::load(norm + channel);
#pragma unroll
    for (int k = 0; k < kQuad; ++k) {
      const auto weights =
          Quad<float>::load(weight + static_cast<std::int64_t>(channel + k) * kUsualTaps);
#pragma unroll
      for (int j = 0; j < kUsualTaps; ++j) tap[j][k] = norms[k] * weights[j];
    }
  }
};

template <class T>
Convolution<T> convolution_of(const ConvolutionInputs& in) {
  const std::int64_t positions = in.x.dim(0) * in.x.dim(1);
  FULCRUM_REQUIRE(positions + in.weight.dim(1) * in.dilation < (std::int64_t{1} << 31),
                  "convolution: {} positions are too many", positions);
  return {static_cast<std::int32_t>(positions), static_cast<std::uint32_t>(in.x.dim(1)),
          static_cast<int>(in.x.dim(2)),        static_cast<int>(in.weight.dim(1)),
          static_cast<int>(in.dilation),        device_data<T>(in.x),
          device_data<float>(in.weight),        device_data<float>(in.norm_weight),
          device_data<float>(in.scales),        device_data<float>(in.square_means),
          static_cast<float>(in.eps),           device_data<std::int32_t>(in.start)};
}

// Neighbouring steps of a class: step i is position first + i · dilation. Strip b of all is of
// class b % dilation.
struct Strip {
  std::int32_t first;
  int length;     // positions of the strip
  int available;  // steps from the first to the last position of the class

  template <class T>
  __device__ static Strip of(const Convolution<T>& c, int most, int index) {
    const int residue = index % c.dilation;
    const int begin = index / c.dilation * most;  // in steps of the class
    const int steps = (c.positions - residue + c.dilation - 1) / c.dilation - begin;
    return {residue + begin * c.dilation, steps < most ? steps : most, steps};
  }
};

// How positions are divided into strips: all run at once, or in rounds that are full. All but the
// last of a class have `most` positions.
struct Strips {
  static constexpr int kLeast = 5 * kBefore;  // positions of one; multiples suit the backward walk
  static constexpr int kMost = 42 * kBefore;

  int most;
  int count;  // of all classes

  template <class T>
  static Strips over(const Convolution<T>& c, std::int64_t at_once, int multiple_of) {
    const std::int64_t of_class = ceil_div(c.positions, c.dilation);
    const std::int64_t round = std::max<std::int64_t>(1, at_once / c.dilation);
    const std::int64_t rounds = ceil_div(of_class, kMost * round);
    const std::int64_t each = ceil_div(of_class, rounds * round);
    const int most = std::max(kLeast, static_cast<int>(ceil_div(each, multiple_of)) * multiple_of);
    return {most, static_cast<int>(ceil_div(of_class, most)) * c.dilation};
  }
};

// What a strip must know of each position. Tap kBefore, the position itself, is always seen.
struct Known {
  float scale;
  int seen;  // bit j: tap j sees it from here; bit 4 + j: seen from where tap j looks at here

  static constexpr int kAll = (1 << kBefore) - 1;

  template <class T>
  __device__ static Known of(const Convolution<T>& c, std::int32_t p) {
    Known known{c.scale_at(p), 0};
    const int view = c.view(p);
#pragma unroll
    for (int j = 0; j < kBefore; ++j) {
      const int reach = (kBefore - j) * c.dilation;
      if (reach <= view) known.seen |= 1 << j;
      if (reach <= c.view(p + reach)) known.seen |= 16 << j;
    }
    return known;
  }
};

// 1 / (1 + e^−z) to the last bits but two.
__device__ inline float sigmoid(float z) {
#ifdef __CUDA_ARCH__
  float e, s;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(z * -1.4426950408889634f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(s) : "f"(1.0f + e));
  return s;
#else
  return 1.0f / (1.0f + expf(-z));
#endif
}

// d silu(z) / dz
__device__ inline float silu_slope(float z) {
  const float s = sigmoid(z);
  return s + s * (z - z * s);
}

// Twice that at z = 2h: (1 + t)·(1 + h·(1 − t)) with t = tanh(h). Kernels that are bound by the
// instructions they issue take halves of taps. For bf16 t is right to 2⁻¹¹, one instruction.
template <class T>
__device__ inline float twice_silu_slope(float h) {
  float more;  // 1 + t
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 2) {
    float t;
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(h));
    more = 1.0f + t;
    return more + more * (h - h * t);
  }
#endif
  more = 2.0f * sigmoid(2.0f * h);
  return more + more * (2.0f * h - h * more);
}

// Backward in one pass, or undefined where the taps or the width ask for the general form: the
// gradients of the taps in parts [parts, taps, d]. Rows are in quads.
template <class T>
Tensor convolution_walk(const Convolution<T>& c, const T* gradient, T* dx, bool add, Device device);

}  // namespace fulcrum::ops::cuda
