#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/sum_rows_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kWarps = 32;
constexpr int kAtOnce = 16;  // rows that a thread asks for before it adds, the last ones too

// A block takes 32 columns: its warps sum every 32nd row of them, then the warps are added.
__global__ void __launch_bounds__(kWarps * 32)
    sum_rows_kernel(const float* x, std::int64_t rows, int width, const float* factor, float* out,
                    bool add) {
  __shared__ float sums[kWarps][32];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int column = blockIdx.x * 32 + lane;
  float sum = 0.0f;
  if (column < width) {
    const std::int64_t step = static_cast<std::int64_t>(kWarps) * width;
    const float* next = x + static_cast<std::int64_t>(warp) * width + column;
    for (std::int64_t r = warp; r < rows; r += kAtOnce * kWarps, next += kAtOnce * step) {
      float v[kAtOnce] = {};  // zeros where no row is left
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        if (r + k * kWarps < rows) v[k] = next[k * step];
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) sum += v[k];
    }
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= width) return;
  for (int w = 1; w < kWarps; ++w) sum += sums[w][lane];
  if (factor != nullptr) sum *= factor[column];
  out[column] = add ? out[column] + sum : sum;
}

}  // namespace

void sum_rows(const Tensor& x, const Tensor& out, bool add, const Tensor& factor) {
  const int width = static_cast<int>(x.dim(1));
  if (width == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div(width, 32));
  sum_rows_kernel<<<blocks, kWarps * 32, 0, compute_stream()>>>(device_data<float>(x), x.dim(0),
                                                                width, device_data<float>(factor),
                                                                device_data<float>(out), add);
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
