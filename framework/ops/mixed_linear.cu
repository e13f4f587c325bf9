#include "framework/autograd/tape.h"
#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/gemm_cuda.h"
#include "framework/ops/mixed_linear_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWeightParts = 3;
constexpr int kGradientParts = 2;

// The next bf16 part of x, which becomes what is left.
__device__ __nv_bfloat16 take_part(float& x) {
  const __nv_bfloat16 part = __float2bfloat16_rn(x);
  x -= __bfloat162float(part);
  return part;
}

// parts [3, n]: the parts of every element.
__global__ void split_kernel(const float* x, std::int64_t n, __nv_bfloat16* parts) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  float rest = x[i];
#pragma unroll
  for (int p = 0; p < kWeightParts; ++p) parts[p * n + i] = take_part(rest);
}

// parts [2, n]: the first part of every element, twice.
__global__ void repeat_kernel(const float* x, std::int64_t n, __nv_bfloat16* parts) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const __nv_bfloat16 part = __float2bfloat16_rn(x[i]);
#pragma unroll
  for (int p = 0; p < kGradientParts; ++p) parts[p * n + i] = part;
}

// x [rows, width] → parts [rows, 2, width]
__global__ void split_rows_kernel(const float* x, std::int64_t n, int width, __nv_bfloat16* parts) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const std::int64_t row = i / width;
  __nv_bfloat16* out = parts + i + row * width;
  float rest = x[i];
#pragma unroll
  for (int p = 0; p < kGradientParts; ++p) out[p * width] = take_part(rest);
}

// y [rows, width] = Σ over the parts of x [rows, 3, width], the small ones first
__global__ void sum_row_parts_kernel(const float* x, std::int64_t n, int width, float* y) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const float* parts = x + i + (kWeightParts - 1) * (i / width) * width;
  float sum = 0.0f;
#pragma unroll
  for (int p = kWeightParts - 1; p >= 0; --p) sum += parts[p * width];
  y[i] = sum;
}

// y (+)= Σ over the parts of x [2, n]
__global__ void sum_parts_kernel(const float* x, std::int64_t n, float* y, bool add) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const float sum = x[i] + x[n + i];
  y[i] = add ? y[i] + sum : sum;
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), std::int64_t n, const Arguments&... arguments) {
  if (n == 0) return;
  kernel<<<static_cast<unsigned>(ceil_div(n, kThreads)), kThreads, 0, compute_stream()>>>(
      arguments...);
  FULCRUM_CUDA_LAUNCHED();
}

// [rows, width] of parts that lie in one row.
Tensor forward(const Tensor& x, const Tensor& weight) {
  const std::int64_t rows = x.dim(0);
  const std::int64_t width = weight.dim(0);
  const Tensor parts =
      Tensor::empty({kWeightParts * width, weight.dim(1)}, DType::bf16, x.device());
  launch(split_kernel, weight.numel(), device_data<float>(weight), weight.numel(),
         device_data<__nv_bfloat16>(parts));
  const Tensor products = Tensor::empty({rows, kWeightParts * width}, DType::f32, x.device());
  multiply(x, false, parts, true, products, false);
  const Tensor y = Tensor::empty({rows, width}, DType::f32, x.device());
  launch(sum_row_parts_kernel, y.numel(), device_data<float>(products), y.numel(),
         static_cast<int>(width), device_data<float>(y));
  return y;
}

// g f32 [rows, width] → its parts [rows, 2 · width]
Tensor split_gradient(const Tensor& g) {
  const Tensor parts =
      Tensor::empty({g.dim(0), kGradientParts * g.dim(1)}, DType::bf16, g.device());
  launch(split_rows_kernel, g.numel(), device_data<float>(g), g.numel(), static_cast<int>(g.dim(1)),
         device_data<__nv_bfloat16>(parts));
  return parts;
}

void input_gradient(const Tensor& g, const Tensor& weight, const Tensor& out, bool add) {
  const Tensor parts =
      Tensor::empty({kGradientParts * weight.dim(0), weight.dim(1)}, DType::bf16, g.device());
  launch(repeat_kernel, weight.numel(), device_data<float>(weight), weight.numel(),
         device_data<__nv_bfloat16>(parts));
  multiply(g, false, parts, false, out, add);
}

void weight_gradient(const Tensor& g, const Tensor& x, const Tensor& out, bool add) {
  const Tensor parts = Tensor::empty({g.dim(1), x.dim(1)}, DType::f32, g.device());
  multiply(g, true, x, false, parts, false);
  launch(sum_parts_kernel, out.numel(), device_data<float>(parts), out.numel(),
         device_data<float>(out), add);
}

}  // namespace

Tensor mixed_linear(const Tensor& x, const Tensor& weight) {
  Shape shape = x.shape();
  shape[-1] = weight.dim(0);
  std::int64_t count = 1;
  for (int i = 0; i + 1 < x.rank(); ++i) count *= x.dim(i);
  const Tensor rows = x.detach().reshape({count, x.dim(-1)});
  Tensor y = forward(rows, weight).reshape(shape);
  if (Tape* tape = Tape::recording({x, weight})) {
    tape->record("linear", {x, weight}, {&y}, [rows, weight = weight.detach()](Backward& b) {
      const Tensor g = split_gradient(b.grad(0).reshape({rows.dim(0), weight.dim(0)}));
      if (b.needs(0)) {
        const auto [out, add] = b.target(0);
        input_gradient(g, weight, out.reshape(rows.shape()), add);
      }
      b.weight_gradient(1, [rows, g, shape = weight.shape()](GradSlot& slot) {
        const auto [out, add] = slot.target(shape, DType::f32, rows.device());
        weight_gradient(g, rows, out, add);
      });
    });
  }
  return y;
}

}  // namespace fulcrum::ops::cuda
