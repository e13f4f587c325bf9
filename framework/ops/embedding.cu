#include <limits>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/embedding_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;

// Consecutive threads move consecutive packs of y, which are runs of the rows that ids name.
template <class T, int kN, class Index>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const T* weight, const std::int32_t* ids, Index total, Index row_packs, T* y) {
  const Index first = static_cast<Index>(blockIdx.x) * kThreads * kUnroll + threadIdx.x;
  Pack<T, kN> v[kUnroll];
#pragma unroll
  for (int k = 0; k < kUnroll; ++k) {
    const Index i = first + k * kThreads;
    if (i >= total) continue;
    const Index t = i / row_packs;
    const std::int64_t from = static_cast<std::int64_t>(ids[t]) * row_packs + (i - t * row_packs);
    v[k] = Pack<T, kN>::load(weight + from * kN);
  }
#pragma unroll
  for (int k = 0; k < kUnroll; ++k) {
    const Index i = first + k * kThreads;
    if (i < total) v[k].store(y + static_cast<std::int64_t>(i) * kN);
  }
}

template <class T, int kN>
void gather(const T* weight, const std::int32_t* ids, std::int64_t n, std::int64_t width, T* y) {
  const std::int64_t total = n * (width / kN);
  const auto blocks = static_cast<unsigned>(ceil_div(total, kThreads * kUnroll));
  // Index arithmetic in 32 bits where it fits: the division counts.
  if (total <= std::numeric_limits<std::int32_t>::max() - kThreads * kUnroll) {
    gather_kernel<T, kN, std::uint32_t><<<blocks, kThreads, 0, compute_stream()>>>(
        weight, ids, static_cast<std::uint32_t>(total), static_cast<std::uint32_t>(width / kN), y);
  } else {
    gather_kernel<T, kN, std::int64_t>
        <<<blocks, kThreads, 0, compute_stream()>>>(weight, ids, total, width / kN, y);
  }
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace

void embedding(const Tensor& weight, const Tensor& ids, const Tensor& y) {
  if (y.numel() == 0) return;
  const std::int64_t n = ids.dim(0);
  const std::int64_t width = weight.dim(1);
  const auto* id = static_cast<const std::int32_t*>(ids.raw());
  dispatch_cuda("embedding", weight.dtype(), [&]<class T>() {
    const T* w = device_data<T>(weight);
    T* out = device_data<T>(y);
    if (is_wide<T>(w, width) && is_wide<T>(out, width)) {
      gather<T, kWide<T>>(w, id, n, width, out);
    } else {
      gather<T, 1>(w, id, n, width, out);
    }
  });
}

}  // namespace fulcrum::ops::cuda
