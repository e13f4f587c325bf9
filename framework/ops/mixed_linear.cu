#include <algorithm>

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

// Rows in packs of kN elements: a block takes kThreads / lanes of them, a lane every lanes-th pack
// of one. (An element each would spend its time on finding its row.)
struct Rows {
  std::int64_t rows;
  int width;
  int lanes;

  // Calls fn(row, column) for the packs of this thread.
  template <int kN, class Fn>
  __device__ void for_packs(Fn&& fn) const {
    const int of_block = kThreads / lanes;
    const auto slot = static_cast<int>(threadIdx.x) / lanes;
    const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * of_block + slot;
    if (slot >= of_block || row >= rows) return;
    const auto lane = static_cast<int>(threadIdx.x) - slot * lanes;
    for (int column = lane * kN; column < width; column += lanes * kN) fn(row, column);
  }
};

// x [rows, width] → parts [rows, 2, width]
template <int kN>
__global__ void __launch_bounds__(kThreads)
    split_rows_kernel(const float* x, Rows rows, __nv_bfloat16* parts) {
  rows.for_packs<kN>([&](std::int64_t row, int column) {
    Pack<float, kN> rest = Pack<float, kN>::load(x + row * rows.width + column);
#pragma unroll
    for (int p = 0; p < kGradientParts; ++p) {
      Pack<__nv_bfloat16, kN> part;
#pragma unroll
      for (int i = 0; i < kN; ++i) part.values[i] = take_part(rest.values[i]);
      part.store(parts + (row * kGradientParts + p) * rows.width + column);
    }
  });
}

// y [rows, width] = Σ over the parts of x [rows, 3, width], the small ones first
template <int kN>
__global__ void __launch_bounds__(kThreads)
    sum_row_parts_kernel(const float* x, Rows rows, float* y) {
  rows.for_packs<kN>([&](std::int64_t row, int column) {
    Pack<float, kN> parts[kWeightParts];
#pragma unroll
    for (int p = 0; p < kWeightParts; ++p) {
      parts[p] = Pack<float, kN>::load(x + (row * kWeightParts + p) * rows.width + column);
    }
    Pack<float, kN> sum = {};
#pragma unroll
    for (int p = kWeightParts - 1; p >= 0; --p) {
#pragma unroll
      for (int i = 0; i < kN; ++i) sum.values[i] += parts[p].values[i];
    }
    sum.store(y + row * rows.width + column);
  });
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

// Calls fn.template operator()<kN>(rows, blocks) for f32 rows that start at x.
template <class Fn>
void over_rows(const float* x, std::int64_t rows, std::int64_t width, Fn&& fn) {
  if (rows * width == 0) return;
  const auto call = [&]<int kN>() {
    const auto lanes = static_cast<int>(std::min<std::int64_t>(width / kN, kThreads));
    fn.template operator()<kN>(Rows{rows, static_cast<int>(width), lanes},
                               static_cast<unsigned>(ceil_div(rows, kThreads / lanes)));
    FULCRUM_CUDA_LAUNCHED();
  };
  if (width % 4 == 0 && is_aligned(x, 4)) {
    call.template operator()<4>();
  } else {
    call.template operator()<1>();
  }
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
  const float* from = device_data<float>(products);
  float* to = device_data<float>(y);
  over_rows(from, rows, width, [&]<int kN>(const Rows& r, unsigned blocks) {
    sum_row_parts_kernel<kN><<<blocks, kThreads, 0, compute_stream()>>>(from, r, to);
  });
  return y;
}

// g f32 [rows, width] → its parts [rows, 2 · width]
Tensor split_gradient(const Tensor& g) {
  const Tensor parts =
      Tensor::empty({g.dim(0), kGradientParts * g.dim(1)}, DType::bf16, g.device());
  const float* from = device_data<float>(g);
  auto* to = device_data<__nv_bfloat16>(parts);
  over_rows(from, g.dim(0), g.dim(1), [&]<int kN>(const Rows& r, unsigned blocks) {
    split_rows_kernel<kN><<<blocks, kThreads, 0, compute_stream()>>>(from, r, to);
  });
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
