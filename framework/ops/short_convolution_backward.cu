#include <algorithm>

#include "framework/ops/short_convolution.cuh"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = kRowThreads;
constexpr int kPositionsOfPart = 64;
constexpr int kSumsAtOnce = 8;

// The general form, for any number of taps and any width: dz is written and read again.

// dz, the gradient of the convolution's result before SiLU.
template <class T, int kPack>
__global__ void __launch_bounds__(kThreads)
    slopes_kernel(const __grid_constant__ Convolution<T> c, const T* gradient, T* dz) {
  const std::int64_t p = blockIdx.x;
  const int channel = (blockIdx.y * kThreads + threadIdx.x) * kPack;
  if (channel >= c.d) return;
  const int view = c.view(blockIdx.x);
  float z[kPack] = {};
  for (int j = 0; j < c.taps; ++j) {
    const int back = c.reach(j);
    if (back > view) continue;
    const auto x = Pack<T, kPack>::load(c.x + (p - back) * c.d + channel);
    const float scale = c.scale_at(p - back);
#pragma unroll
    for (int k = 0; k < kPack; ++k) z[k] += c.tap(channel + k, j) * (scale * x[k]);
  }
  const auto g = Pack<T, kPack>::load(gradient + p * c.d + channel);
  Pack<T, kPack> out;
#pragma unroll
  for (int k = 0; k < kPack; ++k) out.set(k, g[k] * silu_slope(z[k]));
  out.store(dz + p * c.d + channel);
}

// Block (part, tile of channels, tap).
template <class T, int kPack>
__global__ void __launch_bounds__(kThreads)
    taps_kernel(const __grid_constant__ Convolution<T> c, const T* dz, float* partial) {
  const int channel = (blockIdx.y * kThreads + threadIdx.x) * kPack;
  if (channel >= c.d) return;
  const int tap = blockIdx.z;
  const int back = c.reach(tap);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kPositionsOfPart;
  const std::int64_t end =
      first + kPositionsOfPart < c.positions ? first + kPositionsOfPart : c.positions;
  float sum[kPack] = {};
#pragma unroll kSumsAtOnce
  for (std::int64_t p = first; p < end; ++p) {
    if (back > c.view(p)) continue;
    const auto slope = Pack<T, kPack>::load(dz + p * c.d + channel);
    const auto x = Pack<T, kPack>::load(c.x + (p - back) * c.d + channel);
    const float scale = c.scale_at(p - back);
#pragma unroll
    for (int k = 0; k < kPack; ++k) sum[k] += slope[k] * (scale * x[k]);
  }
  float* const out = partial + (static_cast<std::int64_t>(blockIdx.x) * c.taps + tap) * c.d;
#pragma unroll
  for (int k = 0; k < kPack; ++k) out[channel + k] = sum[k];
}

// m(p) = Σ_j taps_j ⊙ dz(p + reach_j)
template <class T, int kPack>
__device__ inline void ahead(const Convolution<T>& c, const T* dz, std::int64_t p, int channel,
                             float (&m)[kPack]) {
#pragma unroll
  for (int k = 0; k < kPack; ++k) m[k] = 0.0f;
  for (int j = 0; j < c.taps; ++j) {
    const int reach = c.reach(j);
    if (reach > c.view(p + reach)) continue;
    const auto slope = Pack<T, kPack>::load(dz + (p + reach) * c.d + channel);
#pragma unroll
    for (int k = 0; k < kPack; ++k) m[k] += c.tap(channel + k, j) * slope[k];
  }
}

// A block takes a position.
template <class T, int kPack, bool kFused>
__global__ void __launch_bounds__(kThreads)
    inputs_kernel(const __grid_constant__ Convolution<T> c, const T* gradient, const T* dz, T* dx,
                  bool add) {
  const std::int64_t p = blockIdx.x;
  const float scale = c.scale_at(p);
  float along = 0.0f;
  if constexpr (kFused) {
    float dot[1] = {};
    for (int channel = threadIdx.x * kPack; channel < c.d; channel += kThreads * kPack) {
      float m[kPack];
      ahead(c, dz, p, channel, m);
      const auto x = Pack<T, kPack>::load(c.x + p * c.d + channel);
#pragma unroll
      for (int k = 0; k < kPack; ++k) dot[0] += m[k] * x[k];
    }
    group_sums(dot, kThreads, 0);
    along = scale * scale * scale * dot[0] / static_cast<float>(c.d);
  }
  for (int channel = threadIdx.x * kPack; channel < c.d; channel += kThreads * kPack) {
    float m[kPack];
    ahead(c, dz, p, channel, m);
    const std::int64_t at = p * c.d + channel;
    Pack<T, kPack> x, g, out;
    if constexpr (kFused) {
      x = Pack<T, kPack>::load(c.x + at);
      g = Pack<T, kPack>::load(gradient + at);
    }
    if (add) out = Pack<T, kPack>::load(dx + at);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const float d = kFused ? scale * m[k] - along * x[k] + g[k] : m[k];
      out.set(k, add ? out[k] + d : d);
    }
    out.store(dx + at);
  }
}

template <class T, int kPack>
Tensor in_passes(const Convolution<T>& c, const Tensor& gradient, T* dx, bool add) {
  const bool fused = c.norm != nullptr;
  const Tensor dz = fused ? Tensor::empty_like(gradient) : gradient;
  const T* g = device_data<T>(gradient);
  const auto positions = static_cast<unsigned>(c.positions);
  const auto tiles = static_cast<unsigned>(ceil_div(c.d, kThreads * kPack));
  if (fused) {
    slopes_kernel<T, kPack>
        <<<dim3(positions, tiles), kThreads, 0, compute_stream()>>>(c, g, device_data<T>(dz));
    FULCRUM_CUDA_LAUNCHED();
  }
  const std::int64_t parts = ceil_div(c.positions, kPositionsOfPart);
  const std::int64_t taps = c.taps;
  const std::int64_t width = c.d;
  const Tensor partial = Tensor::empty({parts, taps, width}, DType::f32, gradient.device());
  const dim3 grid(static_cast<unsigned>(parts), tiles, static_cast<unsigned>(c.taps));
  taps_kernel<T, kPack>
      <<<grid, kThreads, 0, compute_stream()>>>(c, device_data<T>(dz), device_data<float>(partial));
  FULCRUM_CUDA_LAUNCHED();
  if (dx == nullptr) return partial;
  const auto inputs = fused ? inputs_kernel<T, kPack, true> : inputs_kernel<T, kPack, false>;
  inputs<<<positions, kThreads, 0, compute_stream()>>>(c, g, device_data<T>(dz), dx, add);
  FULCRUM_CUDA_LAUNCHED();
  return partial;
}

template <class T>
Tensor backward(const ConvolutionInputs& in, const Tensor& gradient, T* dx, bool add) {
  const Convolution<T> c = convolution_of<T>(in);
  const T* g = device_data<T>(gradient);
  if (!in_quads<T>(c.d, {c.x, g, dx})) return in_passes<T, 1>(c, gradient, dx, add);
  if (const Tensor partial = convolution_walk<T>(c, g, dx, add, gradient.device());
      partial.defined())
    return partial;
  return in_passes<T, kQuad>(c, gradient, dx, add);
}

}  // namespace

Tensor convolution_backward(const ConvolutionInputs& in, const Tensor& gradient, const Tensor& dx,
                            bool add) {
  if (gradient.numel() == 0)
    return Tensor::zeros({1, in.weight.dim(1), in.weight.dim(0)}, DType::f32, gradient.device());
  Tensor partial;
  dispatch_cuda("convolution", gradient.dtype(),
                [&]<class T>() { partial = backward<T>(in, gradient, device_data<T>(dx), add); });
  return partial;
}

}  // namespace fulcrum::ops::cuda
