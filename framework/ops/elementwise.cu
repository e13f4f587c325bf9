#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/elementwise_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;  // packs that a thread has in flight

// Blocks of a grid that walks over packs: `rounds` times what fits the device at once, or fewer.
unsigned walkers(std::int64_t packs, int rounds = 1) {
  return static_cast<unsigned>(
      std::min<std::int64_t>(ceil_div(packs, kThreads * kUnroll), rounds * 8 * multiprocessors()));
}

// Of kernels that also write: blocks that begin and end at different times read and write side by
// side, where those that walk together all read, then all write.
constexpr int kWritingRounds = 16;

// Calls fn.template operator()<kN>(first, packs) for the elements that go kN at once, and for those
// that go alone.
template <int kN, class Fn>
void in_packs(std::int64_t n, bool aligned, Fn&& fn) {
  const std::int64_t packs = aligned ? n / kN : 0;
  if (packs > 0) fn.template operator()<kN>(std::int64_t{0}, packs);
  if (n > packs * kN) fn.template operator()<1>(packs * kN, n - packs * kN);
}

// out (+)= factor · x, with factor · *times where times is given.
template <class In, class Out, int kN>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(const In* x, float factor, const float* times, std::int64_t packs, Out* out,
                 bool add) {
  if (times != nullptr) {
    factor *= *times;
    const bool in_place = static_cast<const void*>(x) == static_cast<const void*>(out);
    if (factor == 1.0f && in_place && !add) return;
  }
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads * kUnroll;
  for (std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * kThreads * kUnroll + threadIdx.x;
       base < packs; base += step) {
    Pack<In, kN> in[kUnroll];
    Pack<Out, kN> sum[kUnroll];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const std::int64_t i = base + k * kThreads;
      if (i >= packs) continue;
      in[k] = Pack<In, kN>::load(x + i * kN);
      if (add) sum[k] = Pack<Out, kN>::load(out + i * kN);
    }
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const std::int64_t i = base + k * kThreads;
      if (i >= packs) continue;
      Pack<Out, kN> y;
#pragma unroll
      for (int j = 0; j < kN; ++j) y.set(j, factor * in[k][j] + (add ? sum[k][j] : 0.0f));
      y.store(out + i * kN);
    }
  }
}

template <class In, class Out>
void scale(const Tensor& x, double factor, const float* times, const Tensor& out, bool add) {
  constexpr int kN = 16 / static_cast<int>(std::max(sizeof(In), sizeof(Out)));
  const In* p = device_data<In>(x);
  Out* q = device_data<Out>(out);
  in_packs<kN>(x.numel(), is_aligned(p, kN) && is_aligned(q, kN),
               [&]<int kPack>(std::int64_t first, std::int64_t packs) {
                 scale_kernel<In, Out, kPack>
                     <<<walkers(packs, kWritingRounds), kThreads, 0, compute_stream()>>>(
                         p + first, static_cast<float>(factor), times, packs, q + first, add);
                 FULCRUM_CUDA_LAUNCHED();
               });
}

constexpr int kRows = 4;  // of a block of add_bias

template <class T, int kN>
__global__ void __launch_bounds__(kThreads)
    add_bias_kernel(const T* x, const float* bias, std::int64_t rows, int packs, T* y) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kRows;
  for (int p = threadIdx.x; p < packs; p += blockDim.x) {
    Pack<T, kN> v[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r < rows) v[r] = Pack<T, kN>::load(x + ((first + r) * packs + p) * kN);
    }
    float b[kN];
#pragma unroll
    for (int i = 0; i < kN; ++i) b[i] = bias[p * kN + i];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r >= rows) continue;
#pragma unroll
      for (int i = 0; i < kN; ++i) v[r].set(i, v[r][i] + b[i]);
      v[r].store(y + ((first + r) * packs + p) * kN);
    }
  }
}

template <class T, int kN>
void add_bias(const T* x, const float* bias, std::int64_t rows, std::int64_t width, T* y) {
  const auto packs = static_cast<int>(width / kN);
  const auto threads = static_cast<unsigned>(std::min(kThreads, (packs + 31) / 32 * 32));
  const auto blocks = static_cast<unsigned>(ceil_div(rows, kRows));
  add_bias_kernel<T, kN><<<blocks, threads, 0, compute_stream()>>>(x, bias, rows, packs, y);
  FULCRUM_CUDA_LAUNCHED();
}

// A pack is summed in f32, packs in f64.
template <class T, int kN>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(const T* x, std::int64_t packs, double* partial) {
  double total = 0.0;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads * kUnroll;
  for (std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * kThreads * kUnroll + threadIdx.x;
       base < packs; base += step) {
    Pack<T, kN> v[kUnroll];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const std::int64_t i = base + k * kThreads;
      if (i < packs) v[k] = Pack<T, kN>::load(x + i * kN);
    }
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      if (base + k * kThreads >= packs) continue;
      float s = 0.0f;
#pragma unroll
      for (int i = 0; i < kN; ++i) s += v[k][i];
      total += static_cast<double>(s);
    }
  }
  total = block_sum<kThreads>(total);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__global__ void finish_sum_kernel(const double* partial, int count, float* y) {
  double total = 0.0;
  for (int i = threadIdx.x; i < count; i += kThreads) total += partial[i];
  total = block_sum<kThreads>(total);
  if (threadIdx.x == 0) *y = static_cast<float>(total);
}

template <class T>
void sum(const Tensor& x, const Tensor& y) {
  const T* p = device_data<T>(x);
  const Tensor partial = Tensor::empty({2 * walkers(x.numel())}, DType::f64, x.device());
  auto* parts = static_cast<double*>(partial.raw());
  unsigned used = 0;
  in_packs<kWide<T>>(
      x.numel(), is_aligned(p, kWide<T>), [&]<int kN>(std::int64_t first, std::int64_t packs) {
        sum_kernel<T, kN>
            <<<walkers(packs), kThreads, 0, compute_stream()>>>(p + first, packs, parts + used);
        FULCRUM_CUDA_LAUNCHED();
        used += walkers(packs);
      });
  finish_sum_kernel<<<1, kThreads, 0, compute_stream()>>>(parts, static_cast<int>(used),
                                                          device_data<float>(y));
  FULCRUM_CUDA_LAUNCHED();
}

template <class T>
__global__ void broadcast_kernel(const float* value, std::int64_t n, T* out, bool add) {
  const float v = *value;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n;
       i += static_cast<std::int64_t>(gridDim.x) * kThreads) {
    out[i] = from_float<T>(add ? to_float(out[i]) + v : v);
  }
}

}  // namespace

void scale(const Tensor& x, double factor, const Tensor& y) {
  dispatch_cuda("scale", x.dtype(), [&]<class T>() { scale<T, T>(x, factor, nullptr, y, false); });
}

void scale_by(const Tensor& x, const Tensor& factor) {
  const float* times = device_data<float>(factor);
  dispatch_cuda("scale", x.dtype(), [&]<class T>() { scale<T, T>(x, 1.0, times, x, false); });
}

void scaled_into(const Tensor& x, const Tensor& factor, const Tensor& out, bool add) {
  const float* times = device_data<float>(factor);
  dispatch_cuda("scale", x.dtype(), [&]<class In>() {
    dispatch_cuda("scale", out.dtype(),
                  [&]<class Out>() { scale<In, Out>(x, 1.0, times, out, add); });
  });
}

void add_bias(const Tensor& x, const Tensor& bias, const Tensor& y) {
  if (x.numel() == 0) return;
  const std::int64_t width = x.dim(-1);
  const std::int64_t rows = x.numel() / width;
  dispatch_cuda("add_bias", x.dtype(), [&]<class T>() {
    const T* p = device_data<T>(x);
    T* q = device_data<T>(y);
    const float* b = device_data<float>(bias);
    if (is_wide<T>(p, width) && is_wide<T>(q, width)) {
      add_bias<T, kWide<T>>(p, b, rows, width, q);
    } else {
      add_bias<T, 1>(p, b, rows, width, q);
    }
  });
}

void sum(const Tensor& x, const Tensor& y) {
  dispatch_cuda("sum", x.dtype(), [&]<class T>() { sum<T>(x, y); });
}

void broadcast(const Tensor& value, const Tensor& out, bool add) {
  if (out.numel() == 0) return;
  const float* v = device_data<float>(value);
  dispatch_cuda("broadcast", out.dtype(), [&]<class T>() {
    const auto blocks = static_cast<unsigned>(
        std::min<std::int64_t>(ceil_div(out.numel(), kThreads), 16 * multiprocessors()));
    broadcast_kernel<<<blocks, kThreads, 0, compute_stream()>>>(v, out.numel(), device_data<T>(out),
                                                                add);
    FULCRUM_CUDA_LAUNCHED();
  });
}

}  // namespace fulcrum::ops::cuda
