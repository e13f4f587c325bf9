// Grouped products for any widths, dtypes and chips: tiles of 64 × 64 in shared memory, f32
// multiply-adds in order of the contraction.

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/grouped_matmul_tiles.cuh"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kTile = 64;
constexpr int kDepth = 16;
constexpr int kThreads = 256;

// Rows behind the last group.
template <class T>
__global__ void zero_rest_kernel(const GroupedProduct p) {
  T* out = static_cast<T*>(p.out);
  const std::int64_t end = static_cast<std::int64_t>(p.rows) * p.columns;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::int64_t i = p.offsets[p.groups] * p.columns + blockIdx.x * blockDim.x + threadIdx.x;
  for (; i < end; i += step) out[i] = from_float<T>(0.0f);
}

// Moves 64 × kDepth elements, those outside as zeros; element (i, k) is at i · stride + k ·
// depth_stride.
template <class T>
__device__ void load(const T* from, std::int64_t stride, std::int64_t depth_stride, int count,
                     int depth, float (*to)[kTile + 4]) {
#pragma unroll
  for (int n = threadIdx.x; n < kTile * kDepth; n += kThreads) {
    // Neighbouring threads read neighbouring elements.
    const int k = depth_stride == 1 ? n % kDepth : n / kTile;
    const int i = depth_stride == 1 ? n / kDepth : n % kTile;
    to[k][i] = i < count && k < depth ? to_float(from[i * stride + k * depth_stride]) : 0.0f;
  }
}

template <Form kForm, class T, class Out>
__global__ __launch_bounds__(kThreads) void product_kernel(const GroupedProduct p, const T* a,
                                                           const T* b) {
  __shared__ float as[kDepth][kTile + 4], bs[kDepth][kTile + 4];
  GroupedTileWalk<kForm, kTile, kTile> walk(p);
  GroupedTile tile;
  if (!walk.find(blockIdx.x, tile)) return;
  const std::int64_t columns = p.columns;
  const std::int64_t matrix = tile.group * columns * p.depth;
  std::int64_t stride_a, step_a, stride_b, step_b;
  if constexpr (kForm == Form::weight) {
    stride_a = stride_b = 1;
    step_a = p.out_rows;
    step_b = columns;
    a += tile.first * step_a + tile.row;
    b += tile.first * step_b + tile.column;
  } else {
    stride_a = p.depth;
    step_a = 1;
    a += tile.row * stride_a;
    stride_b = kForm == Form::forward ? p.depth : 1;
    step_b = kForm == Form::forward ? 1 : columns;
    b += matrix + tile.column * stride_b;
  }
  const int rows = min(kTile, tile.row_end - tile.row);
  const int width = min(kTile, p.columns - tile.column);
  const int i = threadIdx.x / 16 * 4;
  const int j = threadIdx.x % 16 * 4;
  float sums[4][4] = {};
  for (int k = 0; k < tile.depth; k += kDepth) {
    load(a + k * step_a, stride_a, step_a, rows, tile.depth - k, as);
    load(b + k * step_b, stride_b, step_b, width, tile.depth - k, bs);
    __syncthreads();
#pragma unroll
    for (int kk = 0; kk < kDepth; ++kk) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) sums[r][c] += as[kk][i + r] * bs[kk][j + c];
      }
    }
    __syncthreads();
  }
  const std::int64_t base =
      kForm == Form::weight ? static_cast<std::int64_t>(tile.group) * p.out_rows : 0;
  for (int r = 0; r < 4 && i + r < rows; ++r) {
    Out* out = static_cast<Out*>(p.out) + (base + tile.row + i + r) * columns + tile.column;
    for (int c = 0; c < 4 && j + c < width; ++c) {
      const float sum = p.add ? to_float(out[j + c]) + sums[r][c] : sums[r][c];
      out[j + c] = from_float<Out>(sum);
    }
  }
}

template <Form kForm, class T, class Out>
void launch(const GroupedProduct& p, const Tensor& a, const Tensor& b) {
  const std::int64_t column_tiles = ceil_div(p.columns, kTile);
  // Every group but the last may add a row tile that is not full.
  const std::int64_t row_tiles =
      kForm == Form::weight ? p.groups * ceil_div(p.out_rows, kTile) : p.rows / kTile + p.groups;
  const std::int64_t blocks = row_tiles * column_tiles;
  if (blocks > 0) {
    product_kernel<kForm, T, Out><<<static_cast<unsigned>(blocks), kThreads, 0, compute_stream()>>>(
        p, device_data<T>(a), device_data<T>(b));
    FULCRUM_CUDA_LAUNCHED();
  }
  if (kForm != Form::weight && !p.add && p.rows > 0 && p.columns > 0) {
    zero_rest_kernel<Out><<<2 * multiprocessors(), kThreads, 0, compute_stream()>>>(p);
    FULCRUM_CUDA_LAUNCHED();
  }
}

}  // namespace

void grouped_product_plain(Form form, const GroupedProduct& p, const Tensor& a, const Tensor& b,
                           DType out) {
  dispatch_cuda("grouped_linear", a.dtype(), [&]<class T>() {
    dispatch_cuda("grouped_linear", out, [&]<class Out>() {
      switch (form) {
        case Form::forward:
          return launch<Form::forward, T, Out>(p, a, b);
        case Form::input:
          return launch<Form::input, T, Out>(p, a, b);
        case Form::weight:
          return launch<Form::weight, T, Out>(p, a, b);
      }
    });
  });
}

}  // namespace fulcrum::ops::cuda
