#include <algorithm>

#include "framework/core/cuda_elementwise.h"
#include "framework/core/cuda_kernel.cuh"

namespace fulcrum {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 8;

template <class Fn>
__global__ void for_each_kernel(std::int64_t n, Fn fn) {
  std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads * kPerThread + threadIdx.x;
#pragma unroll
  for (int k = 0; k < kPerThread; ++k, i += kThreads) {
    if (i < n) fn(i);
  }
}

template <class Fn>
void for_each(std::int64_t n, Fn fn) {
  if (n == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div(n, kThreads * kPerThread));
  for_each_kernel<<<blocks, kThreads, 0, compute_stream()>>>(n, fn);
  FULCRUM_CUDA_LAUNCHED();
}

template <class T>
void fill(const Tensor& x, T value) {
  T* p = static_cast<T*>(x.raw());
  for_each(x.numel(), [=] __device__(std::int64_t i) { p[i] = value; });
}

template <class From, class To>
void convert(const Tensor& from, const Tensor& to) {
  const From* p = device_data<From>(from);
  To* q = device_data<To>(to);
  for_each(from.numel(), [=] __device__(std::int64_t i) { q[i] = from_float<To>(to_float(p[i])); });
}

constexpr int kPacks = 2;  // of a thread in add_kernel

template <class A, class B, class Out, int kN>
__global__ void __launch_bounds__(kThreads)
    add_kernel(const A* a, const B* b, Out* out, std::int64_t packs) {
  const std::int64_t first =
      static_cast<std::int64_t>(blockIdx.x) * kThreads * kPacks + threadIdx.x;
  Pack<A, kN> x[kPacks];
  Pack<B, kN> y[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = first + p * kThreads;
    if (i >= packs) continue;
    x[p] = Pack<A, kN>::load(a + kN * i);
    y[p] = Pack<B, kN>::load(b + kN * i);
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = first + p * kThreads;
    if (i >= packs) continue;
    Pack<Out, kN> z;
#pragma unroll
    for (int k = 0; k < kN; ++k) z.set(k, x[p][k] + y[p][k]);
    z.store(out + kN * i);
  }
}

template <class A, class B, class Out>
void add(const Tensor& a, const Tensor& b, const Tensor& out) {
  constexpr int kN = 16 / static_cast<int>(std::max({sizeof(A), sizeof(B), sizeof(Out)}));
  const A* p = device_data<A>(a);
  const B* q = device_data<B>(b);
  Out* r = device_data<Out>(out);
  const std::int64_t n = a.numel();
  const bool aligned = is_aligned(p, kN) && is_aligned(q, kN) && is_aligned(r, kN);
  const std::int64_t packs = aligned ? n / kN : 0;
  if (packs > 0) {
    const auto blocks = static_cast<unsigned>(ceil_div(packs, kThreads * kPacks));
    add_kernel<A, B, Out, kN><<<blocks, kThreads, 0, compute_stream()>>>(p, q, r, packs);
    FULCRUM_CUDA_LAUNCHED();
  }
  for_each(n - kN * packs, [=, first = kN * packs] __device__(std::int64_t i) {
    r[first + i] = from_float<Out>(to_float(p[first + i]) + to_float(q[first + i]));
  });
}

}  // namespace

int multiprocessors() {
  static const int count = [] {
    int device = 0;
    int value = 0;
    FULCRUM_CUDA_CHECK(cudaGetDevice(&device));
    FULCRUM_CUDA_CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device));
    return value;
  }();
  return count;
}

void cuda_fill(const Tensor& x, double value) {
  switch (x.dtype()) {
    case DType::f64:
      return fill(x, value);
    case DType::f32:
      return fill(x, static_cast<float>(value));
    case DType::bf16:
      return fill(x, BFloat16(static_cast<float>(value)).bits);
    case DType::i64:
      return fill(x, static_cast<std::int64_t>(value));
    case DType::i32:
      return fill(x, static_cast<std::int32_t>(value));
    case DType::u16:
      return fill(x, static_cast<std::uint16_t>(value));
    case DType::u8:
      return fill(x, static_cast<std::uint8_t>(value));
  }
}

void cuda_convert(const Tensor& from, const Tensor& to) {
  dispatch_cuda("to", from.dtype(), [&]<class From>() {
    dispatch_cuda("to", to.dtype(), [&]<class To>() { convert<From, To>(from, to); });
  });
}

void cuda_add(const Tensor& a, const Tensor& b, const Tensor& out) {
  FULCRUM_REQUIRE(a.numel() == b.numel() && a.numel() == out.numel(), "add: {} and {} into {}",
                  a.shape(), b.shape(), out.shape());
  dispatch_cuda("add", a.dtype(), [&]<class A>() {
    dispatch_cuda("add", b.dtype(), [&]<class B>() {
      dispatch_cuda("add", out.dtype(), [&]<class Out>() { add<A, B, Out>(a, b, out); });
    });
  });
}

}  // namespace fulcrum
