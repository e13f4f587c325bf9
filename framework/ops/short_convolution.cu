#include <algorithm>

#include "framework/core/cuda_row.cuh"
#include "framework/ops/short_convolution.cuh"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;

template <class T, int kQuads>
__global__ void __launch_bounds__(kRowThreads)
    scales_kernel(const T* x, std::int64_t rows, int d, int lanes, float eps, float* scales) {
  const int lane = threadIdx.x % lanes;
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * (kRowThreads / lanes) + threadIdx.x / lanes;
  float sum[1] = {};
  if (row < rows) {
    GroupRow<T, kQuads> r;
    r.load(x + row * d, d / kQuad, lane, lanes);
#pragma unroll
    for (int p = 0; p < kQuads; ++p) {
      if (p * lanes + lane >= d / kQuad) continue;
#pragma unroll
      for (int j = 0; j < kQuad; ++j) sum[0] += r.quads[p][j] * r.quads[p][j];
    }
  }
  group_sums(sum, lanes, 0);
  if (row < rows && lane == 0) scales[row] = rsqrtf(sum[0] / static_cast<float>(d) + eps);
}

template <class T>
__global__ void __launch_bounds__(kRowThreads)
    scales_any_kernel(const T* x, int d, float eps, float* scales) {
  const T* row = x + static_cast<std::int64_t>(blockIdx.x) * d;
  float sum[1] = {};
  for (int i = threadIdx.x; i < d; i += kRowThreads) sum[0] += to_float(row[i]) * to_float(row[i]);
  group_sums(sum, kRowThreads, 0);
  if (threadIdx.x == 0) scales[blockIdx.x] = rsqrtf(sum[0] / static_cast<float>(d) + eps);
}

template <class T>
void find_scales(const Tensor& x, float eps, float* scales) {
  const int d = static_cast<int>(x.dim(-1));
  const std::int64_t rows = x.numel() / d;
  const T* p = device_data<T>(x);
  const RowGroup group = row_group<T>(d, {p});
  if (group.lanes == 0) {
    scales_any_kernel<T>
        <<<static_cast<unsigned>(rows), kRowThreads, 0, compute_stream()>>>(p, d, eps, scales);
  } else {
    with_quads_of_lane(group, [&]<int kQuads>() {
      const auto blocks = static_cast<unsigned>(ceil_div(rows, group.groups_of_block()));
      scales_kernel<T, kQuads>
          <<<blocks, kRowThreads, 0, compute_stream()>>>(p, rows, d, group.lanes, eps, scales);
    });
  }
  FULCRUM_CUDA_LAUNCHED();
}

// Four taps: a block walks over a strip of a class, a thread owns four channels.
template <class T>
__global__ void __launch_bounds__(kThreads)
    walk_kernel(const __grid_constant__ Convolution<T> c, int columns, int most, T* y) {
  extern __shared__ __align__(8) unsigned char forward_shared[];
  Known* const known = reinterpret_cast<Known*>(forward_shared);  // of step −3 on
  const Strip strip = Strip::of(c, most, blockIdx.x);
  const int channel = (blockIdx.y * columns + threadIdx.x) * kQuad;
  const bool owns = threadIdx.x < columns && channel < c.d;
  const std::int64_t stride = static_cast<std::int64_t>(c.dilation) * c.d;
  const std::int64_t at = static_cast<std::int64_t>(strip.first) * c.d + channel;
  const T* x = c.x + at;
  T* out = y + at;
  // Asks for rows and taps before it finds out what it must know of positions.
  float tap[kUsualTaps][kQuad] = {};
  Quad<T> before[kBefore], next[kBefore];
#pragma unroll
  for (int u = 0; u < kBefore; ++u) {
    float zero[kQuad] = {};
    before[u] = next[u] = Quad<T>::of(zero);
    if (owns && u < strip.length) next[u] = Quad<T>::load(x + u * stride);
    if (owns && strip.length > 0 && strip.first >= (kBefore - u) * c.dilation) {
      before[u] = Quad<T>::load(x - (kBefore - u) * stride);
    }
  }
  if (owns) c.taps_of(channel, tap);
  for (int i = threadIdx.x; i < strip.length + kBefore; i += blockDim.x) {
    known[i] = Known::of(c, strip.first + (i - kBefore) * c.dilation);
  }
  __syncthreads();
  if (!owns) return;
  // Rows times their scale of the last three steps, in slot (step % 3).
  float ring[kBefore][kQuad];
#pragma unroll
  for (int u = 0; u < kBefore; ++u) {
#pragma unroll
    for (int k = 0; k < kQuad; ++k) ring[u][k] = known[u].scale * before[u][k];
  }
  for (int base = 0; base < strip.length; base += kBefore) {
    x += kBefore * stride;
#pragma unroll
    for (int u = 0; u < kBefore; ++u) {
      if (base + u >= strip.length) return;
      const Known here = known[base + u + kBefore];
      const Quad<T> row = next[u];
      if (base + u + kBefore < strip.length) next[u] = Quad<T>::load(x + u * stride);
      float now[kQuad], z[kQuad];
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        now[k] = here.scale * row[k];
        z[k] = tap[kBefore][k] * now[k];
      }
#pragma unroll
      for (int j = 0; j < kBefore; ++j) {
        if (!(here.seen >> j & 1)) continue;
#pragma unroll
        for (int k = 0; k < kQuad; ++k) z[k] += tap[j][k] * ring[(u + j) % kBefore][k];
      }
      float result[kQuad];
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        result[k] = row[k] + z[k] * sigmoid(z[k]);
        ring[u][k] = now[k];
      }
      Quad<T>::of(result).store(out + u * stride);
    }
    out += kBefore * stride;
  }
}

// Any number of taps; block (position, tile of channels).
template <class T, int kPack>
__global__ void __launch_bounds__(kThreads)
    forward_any_kernel(const __grid_constant__ Convolution<T> c, T* y) {
  const std::int64_t p = blockIdx.x;
  const int channel = (blockIdx.y * kThreads + threadIdx.x) * kPack;
  if (channel >= c.d) return;
  const int view = c.view(blockIdx.x);
  float z[kPack] = {};
  Pack<T, kPack> x;  // in the end of p itself, which the last tap looks at
  for (int j = 0; j < c.taps; ++j) {
    const int back = c.reach(j);
    if (back > view) continue;
    x = Pack<T, kPack>::load(c.x + (p - back) * c.d + channel);
    const float scale = c.scale_at(static_cast<std::int32_t>(p) - back);
#pragma unroll
    for (int k = 0; k < kPack; ++k) z[k] += c.tap(channel + k, j) * (scale * x[k]);
  }
  Pack<T, kPack> out;
#pragma unroll
  for (int k = 0; k < kPack; ++k) {
    out.set(k, c.norm == nullptr ? z[k] : x[k] + z[k] * sigmoid(z[k]));
  }
  out.store(y + p * c.d + channel);
}

// Threads of a block, and blocks that share a row, so that few threads are idle.
struct Tiling {
  int tiles = 0;
  int columns = 0;

  static Tiling of(int quads) {
    Tiling best;
    const int least = static_cast<int>(ceil_div(quads, kThreads));
    for (int tiles = least; tiles < least + 4; ++tiles) {
      const Tiling next{tiles, static_cast<int>(ceil_div(quads, tiles))};
      if (best.tiles == 0 || tiles * next.threads() < best.tiles * best.threads()) best = next;
    }
    return best;
  }
  int threads() const { return static_cast<int>(ceil_div(columns, 32) * 32); }
};

template <class T>
void walk(const Convolution<T>& c, T* y) {
  const Tiling tiling = Tiling::of(c.d / kQuad);
  int resident = 0;  // blocks of a multiprocessor
  FULCRUM_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &resident, walk_kernel<T>, tiling.threads(), (Strips::kMost + kBefore) * sizeof(Known)));
  const Strips strips = Strips::over(
      c, static_cast<std::int64_t>(std::max(resident, 1)) * multiprocessors() / tiling.tiles, 1);
  const dim3 grid(static_cast<unsigned>(strips.count), static_cast<unsigned>(tiling.tiles));
  walk_kernel<T>
      <<<grid, tiling.threads(), (strips.most + kBefore) * sizeof(Known), compute_stream()>>>(
          c, tiling.columns, strips.most, y);
  FULCRUM_CUDA_LAUNCHED();
}

template <class T, int kPack>
void forward_any(const Convolution<T>& c, T* y) {
  const dim3 grid(static_cast<unsigned>(c.positions),
                  static_cast<unsigned>(ceil_div(c.d, kThreads * kPack)));
  forward_any_kernel<T, kPack><<<grid, kThreads, 0, compute_stream()>>>(c, y);
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace

void row_scales(const Tensor& x, double eps, const Tensor& scales) {
  if (scales.numel() == 0) return;
  dispatch_cuda("short_convolution", x.dtype(), [&]<class T>() {
    find_scales<T>(x, static_cast<float>(eps), device_data<float>(scales));
  });
}

void convolution(const ConvolutionInputs& in, const Tensor& y) {
  if (y.numel() == 0) return;
  dispatch_cuda("convolution", y.dtype(), [&]<class T>() {
    const Convolution<T> c = convolution_of<T>(in);
    T* out = device_data<T>(y);
    if (!in_quads<T>(c.d, {c.x, out})) return forward_any<T, 1>(c, out);
    if (!c.usual()) return forward_any<T, kQuad>(c, out);
    walk(c, out);
  });
}

}  // namespace fulcrum::ops::cuda
