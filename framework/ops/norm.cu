#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/norm_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

// A warp takes a row and holds it in registers, kPacks packs of 16 bytes a lane; a row too wide for
// that, or not a multiple of a pack, goes element by element through a loop over memory.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kMostPacks = 8;

template <class T, int kPacks>
struct Row {
  Pack<T, kWide<T>> packs[kPacks];

  __device__ void load(const T* p, int packs_of_row) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int i = k * 32 + threadIdx.x % 32;
      if (i < packs_of_row) packs[k] = Pack<T, kWide<T>>::load(p + i * kWide<T>);
    }
  }
};

template <class T, int kPacks>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const T* a, const T* b, const float* weight, float eps, std::int64_t rows,
                   int width, T* sum, T* normed, float* inverse) {
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (r >= rows) return;
  const int lane = threadIdx.x % 32;
  const int packs = width / kWide<T>;
  Row<T, kPacks> x;
  x.load(a + r * width, packs);
  if (b != nullptr) {
    Row<T, kPacks> y;
    y.load(b + r * width, packs);
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (k * 32 + lane >= packs) continue;
#pragma unroll
      for (int i = 0; i < kWide<T>; ++i) x.packs[k].set(i, x.packs[k][i] + y.packs[k][i]);
      x.packs[k].store(sum + r * width + (k * 32 + lane) * kWide<T>);
    }
  }
  float squares = 0.0f;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (k * 32 + lane >= packs) continue;
#pragma unroll
    for (int i = 0; i < kWide<T>; ++i) squares += x.packs[k][i] * x.packs[k][i];
  }
  const float scale = rsqrtf(warp_sum(squares) / static_cast<float>(width) + eps);
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int first = (k * 32 + lane) * kWide<T>;
    if (first >= width) continue;
    Pack<T, kWide<T>> out;
#pragma unroll
    for (int i = 0; i < kWide<T>; ++i) out.set(i, x.packs[k][i] * scale * weight[first + i]);
    out.store(normed + r * width + first);
  }
  if (lane == 0) inverse[r] = scale;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    forward_any_kernel(const T* a, const T* b, const float* weight, float eps, int width, T* sum,
                       T* normed, float* inverse) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * width;
  const T* x = a + at;
  float squares = 0.0f;
  for (int i = threadIdx.x; i < width; i += kThreads) {
    float v = to_float(x[i]);
    if (b != nullptr) {
      const T rounded = from_float<T>(v + to_float(b[at + i]));
      sum[at + i] = rounded;
      v = to_float(rounded);
    }
    squares += v * v;
  }
  if (b != nullptr) x = sum + at;  // each thread reads what it wrote
  const float scale = rsqrtf(block_sum<kThreads>(squares) / static_cast<float>(width) + eps);
  for (int i = threadIdx.x; i < width; i += kThreads) {
    normed[at + i] = from_float<T>(to_float(x[i]) * scale * weight[i]);
  }
  if (threadIdx.x == 0) inverse[blockIdx.x] = scale;
}

// Warps walk over rows with a fixed stride and sum the weight's gradient on the way; the warps of a
// block then add theirs in order.
template <class T, int kPacks, bool kWeight>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const T* x, const float* weight, const float* inverse, const T* g,
                    const T* through, std::int64_t rows, int width, T* dx, bool add,
                    float* partial) {
  extern __shared__ float shared_sums[];  // [width], with kWeight
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int packs = width / kWide<T>;
  float sums[kWeight ? kPacks * kWide<T> : 1] = {};
  for (std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp; r < rows;
       r += static_cast<std::int64_t>(gridDim.x) * kWarps) {
    Row<T, kPacks> xr, gr;
    xr.load(x + r * width, packs);
    gr.load(g + r * width, packs);
    const float scale = inverse[r];
    float dot = 0.0f;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int first = (k * 32 + lane) * kWide<T>;
      if (first >= width) continue;
#pragma unroll
      for (int i = 0; i < kWide<T>; ++i) {
        const float gx = gr.packs[k][i] * xr.packs[k][i];
        dot += gx * weight[first + i];
        if constexpr (kWeight) sums[k * kWide<T> + i] += gx * scale;
      }
    }
    if (dx == nullptr) continue;
    const float along = warp_sum(dot) * scale * scale * scale / static_cast<float>(width);
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int first = (k * 32 + lane) * kWide<T>;
      if (first >= width) continue;
      Pack<T, kWide<T>> base;
      const T* from = through != nullptr ? through : dx;
      const bool based = through != nullptr || add;
      if (based) base = Pack<T, kWide<T>>::load(from + r * width + first);
      Pack<T, kWide<T>> out;
#pragma unroll
      for (int i = 0; i < kWide<T>; ++i) {
        const float d = scale * gr.packs[k][i] * weight[first + i] - along * xr.packs[k][i];
        out.set(i, based ? base[i] + d : d);
      }
      out.store(dx + r * width + first);
    }
  }
  if constexpr (kWeight) {
    for (int w = 0; w < kWarps; ++w) {
      if (warp == w) {
#pragma unroll
        for (int k = 0; k < kPacks; ++k) {
          const int first = (k * 32 + lane) * kWide<T>;
          if (first >= width) continue;
#pragma unroll
          for (int i = 0; i < kWide<T>; ++i) {
            float& s = shared_sums[first + i];
            s = w == 0 ? sums[k * kWide<T> + i] : s + sums[k * kWide<T> + i];
          }
        }
      }
      __syncthreads();
    }
    for (int i = threadIdx.x; i < width; i += kThreads) {
      partial[static_cast<std::int64_t>(blockIdx.x) * width + i] = shared_sums[i];
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    backward_any_kernel(const T* x, const float* weight, const float* inverse, const T* g,
                        const T* through, int width, T* dx, bool add) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * width;
  const float scale = inverse[blockIdx.x];
  float dot = 0.0f;
  for (int i = threadIdx.x; i < width; i += kThreads) {
    dot += to_float(g[at + i]) * to_float(x[at + i]) * weight[i];
  }
  const float along = block_sum<kThreads>(dot) * scale * scale * scale / static_cast<float>(width);
  for (int i = threadIdx.x; i < width; i += kThreads) {
    float d = scale * to_float(g[at + i]) * weight[i] - along * to_float(x[at + i]);
    if (through != nullptr) {
      d += to_float(through[at + i]);
    } else if (add) {
      d += to_float(dx[at + i]);
    }
    dx[at + i] = from_float<T>(d);
  }
}

constexpr int kRowsOfPart = 64;

template <class T>
__global__ void weight_any_kernel(const T* x, const float* inverse, const T* g, std::int64_t rows,
                                  int width, float* partial) {
  const int column = blockIdx.y * kThreads + threadIdx.x;
  if (column >= width) return;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kRowsOfPart;
  const std::int64_t end = first + kRowsOfPart < rows ? first + kRowsOfPart : rows;
  float sum = 0.0f;
  for (std::int64_t r = first; r < end; ++r) {
    sum += to_float(g[r * width + column]) * to_float(x[r * width + column]) * inverse[r];
  }
  partial[static_cast<std::int64_t>(blockIdx.x) * width + column] = sum;
}

// A block takes 32 columns; each of its 8 warps sums every eighth row, then the warps are added.
__global__ void sum_rows_kernel(const float* x, std::int64_t rows, int width, float* out,
                                bool add) {
  __shared__ float sums[kWarps][32];
  const int column = blockIdx.x * 32 + threadIdx.x % 32;
  float sum = 0.0f;
  if (column < width) {
    for (std::int64_t r = threadIdx.x / 32; r < rows; r += kWarps) sum += x[r * width + column];
  }
  sums[threadIdx.x / 32][threadIdx.x % 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 32 || column >= width) return;
  for (int w = 1; w < kWarps; ++w) sum += sums[w][threadIdx.x];
  out[column] = add ? out[column] + sum : sum;
}

// Calls fn<kPacks>() with the packs a lane needs for a row, or returns false when rows do not fit.
template <class T, class Fn>
bool with_packs(int width, std::initializer_list<const void*> pointers, Fn&& fn) {
  for (const void* p : pointers) {
    if (p != nullptr && !is_wide<T>(p, width)) return false;
  }
  const int packs = static_cast<int>(ceil_div(width / kWide<T>, 32));
  if (packs > kMostPacks) return false;
  if (packs <= 1) {
    fn.template operator()<1>();
  } else if (packs <= 2) {
    fn.template operator()<2>();
  } else if (packs <= 4) {
    fn.template operator()<4>();
  } else {
    fn.template operator()<8>();
  }
  return true;
}

std::int64_t rows_of(const Tensor& x) { return x.dim(-1) == 0 ? 0 : x.numel() / x.dim(-1); }

template <class T>
void forward(const Tensor& a, const Tensor& b, const Tensor& weight, double eps, const Tensor& sum,
             const Tensor& normed, const Tensor& inverse) {
  const std::int64_t rows = rows_of(a);
  const int width = static_cast<int>(a.dim(-1));
  const T* p = device_data<T>(a);
  const T* q = device_data<T>(b);
  const float* w = device_data<float>(weight);
  T* s = device_data<T>(sum);
  T* y = device_data<T>(normed);
  float* inv = device_data<float>(inverse);
  const auto e = static_cast<float>(eps);
  const bool fits = with_packs<T>(width, {p, q, s, y}, [&]<int kPacks>() {
    const auto blocks = static_cast<unsigned>(ceil_div(rows, kWarps));
    forward_kernel<T, kPacks>
        <<<blocks, kThreads, 0, compute_stream()>>>(p, q, w, e, rows, width, s, y, inv);
  });
  if (!fits) {
    forward_any_kernel<<<static_cast<unsigned>(rows), kThreads, 0, compute_stream()>>>(
        p, q, w, e, width, s, y, inv);
  }
  FULCRUM_CUDA_LAUNCHED();
}

template <class T>
Tensor backward(const Tensor& x, const Tensor& weight, const Tensor& inverse, const Tensor& g,
                const Tensor& through, const Tensor& dx, bool add, bool wants_weight) {
  const std::int64_t rows = rows_of(x);
  const int width = static_cast<int>(x.dim(-1));
  const T* px = device_data<T>(x);
  const float* w = device_data<float>(weight);
  const float* inv = device_data<float>(inverse);
  const T* pg = device_data<T>(g);
  const T* thr = device_data<T>(through);
  T* d = device_data<T>(dx);
  Tensor partial;
  const bool fits = with_packs<T>(width, {px, pg, thr, d}, [&]<int kPacks>() {
    // Two blocks fit a multiprocessor; a grid of that size walks over all rows.
    const auto blocks = static_cast<unsigned>(
        std::min<std::int64_t>(ceil_div(rows, kWarps), 2 * multiprocessors()));
    if (wants_weight) {
      partial = Tensor::empty({blocks, width}, DType::f32, x.device());
      backward_kernel<T, kPacks, true>
          <<<blocks, kThreads, width * sizeof(float), compute_stream()>>>(
              px, w, inv, pg, thr, rows, width, d, add, device_data<float>(partial));
    } else {
      backward_kernel<T, kPacks, false><<<blocks, kThreads, 0, compute_stream()>>>(
          px, w, inv, pg, thr, rows, width, d, add, nullptr);
    }
  });
  if (!fits) {
    if (d != nullptr) {
      backward_any_kernel<<<static_cast<unsigned>(rows), kThreads, 0, compute_stream()>>>(
          px, w, inv, pg, thr, width, d, add);
    }
    if (wants_weight) {
      const std::int64_t parts = ceil_div(rows, kRowsOfPart);
      partial = Tensor::empty({parts, width}, DType::f32, x.device());
      const dim3 grid(static_cast<unsigned>(parts),
                      static_cast<unsigned>(ceil_div(width, kThreads)));
      weight_any_kernel<<<grid, kThreads, 0, compute_stream()>>>(px, inv, pg, rows, width,
                                                                 device_data<float>(partial));
    }
  }
  FULCRUM_CUDA_LAUNCHED();
  return partial;
}

}  // namespace

void rms_norm(const Tensor& a, const Tensor& b, const Tensor& weight, double eps, const Tensor& sum,
              const Tensor& normed, const Tensor& inverse) {
  if (a.numel() == 0) return;
  dispatch_cuda("rms_norm", a.dtype(),
                [&]<class T>() { forward<T>(a, b, weight, eps, sum, normed, inverse); });
}

Tensor rms_norm_backward(const Tensor& x, const Tensor& weight, const Tensor& inverse,
                         const Tensor& g, const Tensor& through, const Tensor& dx, bool add,
                         bool wants_weight) {
  if (x.numel() == 0) {
    return wants_weight ? Tensor::zeros({0, x.dim(-1)}, DType::f32, x.device()) : Tensor();
  }
  Tensor partial;
  dispatch_cuda("rms_norm", x.dtype(), [&]<class T>() {
    partial = backward<T>(x, weight, inverse, g, through, dx, add, wants_weight);
  });
  return partial;
}

void sum_rows(const Tensor& x, const Tensor& out, bool add) {
  const int width = static_cast<int>(x.dim(1));
  if (width == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div(width, 32));
  sum_rows_kernel<<<blocks, kThreads, 0, compute_stream()>>>(device_data<float>(x), x.dim(0), width,
                                                             device_data<float>(out), add);
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
