// Sums of columns: parts of the rows first, then the sums of the parts.
#include <algorithm>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/elementwise_cuda.h"
#include "framework/ops/sum_rows_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kResident = 4;  // blocks of a multiprocessor at once
constexpr int kAhead = 8;     // packs that a thread has in flight: 128 KB a multiprocessor

// A warp takes every eighth row of a part of the rows and a pack of columns a lane; then the warps
// are added in order.
template <class T, int kN>
__global__ void __launch_bounds__(kThreads, kResident)
    column_sums_kernel(const T* x, std::int64_t rows, int width, std::int64_t part_rows,
                       float* partial) {
  __shared__ float sums[kWarps][kN][32];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int column = (blockIdx.x * 32 + lane) * kN;
  const std::int64_t first = blockIdx.y * part_rows;
  const std::int64_t end = first + part_rows < rows ? first + part_rows : rows;
  float sum[kN] = {};
  if (column < width) {
    const std::int64_t step = static_cast<std::int64_t>(kWarps) * width;
    const T* next = x + (first + warp) * width + column;
    auto left = static_cast<int>((end - first - warp + kWarps - 1) / kWarps);  // rows of this warp
    for (; left > 0; left -= kAhead, next += kAhead * step) {
      Pack<T, kN> v[kAhead] = {};  // zeros where no row is left
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (k < left) v[k] = Pack<T, kN>::load(next + k * step);
      }
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
#pragma unroll
        for (int i = 0; i < kN; ++i) sum[i] += v[k][i];
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kN; ++i) sums[warp][i][lane] = sum[i];
  __syncthreads();
  for (int c = threadIdx.x; c < 32 * kN; c += kThreads) {
    const int out = blockIdx.x * 32 * kN + c;
    if (out >= width) continue;
    float total = 0.0f;
    for (int w = 0; w < kWarps; ++w) total += sums[w][c % kN][c / kN];
    partial[static_cast<std::int64_t>(blockIdx.y) * width + out] = total;
  }
}

template <class T, int kN>
Tensor column_sums(const Tensor& x) {
  const std::int64_t rows = x.dim(0);
  const std::int64_t groups = ceil_div(x.dim(1), 32 * kN);
  const std::int64_t part_rows = ceil_div(
      rows,
      std::clamp<std::int64_t>(kResident * multiprocessors() / groups, 1, ceil_div(rows, 32)));
  const std::int64_t parts = ceil_div(rows, part_rows);
  const Tensor partial = Tensor::empty({parts, x.dim(1)}, DType::f32, x.device());
  const dim3 grid(static_cast<unsigned>(groups), static_cast<unsigned>(parts));
  column_sums_kernel<T, kN><<<grid, kThreads, 0, compute_stream()>>>(
      device_data<T>(x), rows, static_cast<int>(x.dim(1)), part_rows, device_data<float>(partial));
  FULCRUM_CUDA_LAUNCHED();
  return partial;
}

}  // namespace

void column_sums(const Tensor& x, const Tensor& out, bool add) {
  if (x.dim(1) == 0) return;
  if (x.dim(0) == 0) {
    if (!add) out.zero();
    return;
  }
  Tensor partial;
  dispatch_cuda("column_sums", x.dtype(), [&]<class T>() {
    partial = is_wide<T>(x.raw(), x.dim(1)) ? column_sums<T, kWide<T>>(x) : column_sums<T, 1>(x);
  });
  sum_rows(partial, out, add);
}

}  // namespace fulcrum::ops::cuda
