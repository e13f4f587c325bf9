#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/norm_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

// kTeam warps take a row together and hold it in registers, kPacks packs of 16 bytes a lane; a row
// too wide for that, or not a multiple of a pack, goes element by element through a loop over
// memory.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kResident = 3;  // blocks of a multiprocessor at once, in backward

// The threads of a row.
template <int kTeam>
struct Team {
  static constexpr int kRows = kWarps / kTeam;  // of a block at once
  int row = threadIdx.x / (32 * kTeam);         // of these
  int lane = threadIdx.x % (32 * kTeam);

  // Over the team; every thread of the block takes part. parity alternates from call to call, so
  // that one barrier is enough.
  __device__ float sum(float x, int parity) const {
    x = warp_sum(x);
    if constexpr (kTeam > 1) {
      __shared__ float partial[2][kWarps];
      if (threadIdx.x % 32 == 0) partial[parity][threadIdx.x / 32] = x;
      __syncthreads();
      x = 0.0f;
#pragma unroll
      for (int w = 0; w < kTeam; ++w) x += partial[parity][row * kTeam + w];
    }
    return x;
  }
};

template <class T, int kTeam, int kPacks>
struct Row {
  Pack<T, kWide<T>> packs[kPacks];

  // First element of pack k of this thread.
  __device__ static int first(const Team<kTeam>& team, int k) {
    return (k * 32 * kTeam + team.lane) * kWide<T>;
  }
  __device__ void load(const T* p, const Team<kTeam>& team, int width) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (first(team, k) < width) packs[k] = Pack<T, kWide<T>>::load(p + first(team, k));
    }
  }
};

template <class T, int kTeam, int kPacks>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const T* a, const T* b, const float* weight, float eps, std::int64_t rows,
                   int width, T* sum, T* normed, float* inverse) {
  using R = Row<T, kTeam, kPacks>;
  const Team<kTeam> team;
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * Team<kTeam>::kRows + team.row;
  const int here = r < rows ? width : 0;  // elements of this team
  R x;
  x.load(a + r * width, team, here);
  if (b != nullptr) {
    R y;
    y.load(b + r * width, team, here);
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (R::first(team, k) >= here) continue;
#pragma unroll
      for (int i = 0; i < kWide<T>; ++i) x.packs[k].set(i, x.packs[k][i] + y.packs[k][i]);
      x.packs[k].store(sum + r * width + R::first(team, k));
    }
  }
  float squares = 0.0f;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (R::first(team, k) >= here) continue;
#pragma unroll
    for (int i = 0; i < kWide<T>; ++i) squares += x.packs[k][i] * x.packs[k][i];
  }
  const float scale = rsqrtf(team.sum(squares, 0) / static_cast<float>(width) + eps);
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int first = R::first(team, k);
    if (first >= here) continue;
    Pack<T, kWide<T>> out;
#pragma unroll
    for (int i = 0; i < kWide<T>; ++i) out.set(i, x.packs[k][i] * scale * weight[first + i]);
    out.store(normed + r * width + first);
  }
  if (team.lane == 0 && here > 0) inverse[r] = scale;
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

// Teams walk over rows with a fixed stride and sum the weight's gradient on the way; the teams of a
// block then add theirs in order.
template <class T, int kTeam, int kPacks, bool kWeight>
__global__ void __launch_bounds__(kThreads, kPacks > 2 ? 2 : kResident)
    backward_kernel(const T* x, const float* weight, const float* inverse, const T* g,
                    const T* through, std::int64_t rows, int width, T* dx, bool add,
                    float* partial) {
  using R = Row<T, kTeam, kPacks>;
  extern __shared__ float shared_sums[];  // [width], with kWeight
  const Team<kTeam> team;
  constexpr int kRows = Team<kTeam>::kRows;
  float sums[kWeight ? kPacks * kWide<T> : 1] = {};
  int parity = 0;
  for (std::int64_t block = static_cast<std::int64_t>(blockIdx.x) * kRows; block < rows;
       block += static_cast<std::int64_t>(gridDim.x) * kRows, parity ^= 1) {
    const std::int64_t r = block + team.row;
    const int here = r < rows ? width : 0;
    R xr, gr, base;
    xr.load(x + r * width, team, here);
    gr.load(g + r * width, team, here);
    const bool based = dx != nullptr && (through != nullptr || add);
    if (based) base.load((through != nullptr ? through : dx) + r * width, team, here);
    const float scale = here > 0 ? inverse[r] : 0.0f;
    float dot = 0.0f;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int first = R::first(team, k);
      if (first >= here) continue;
#pragma unroll
      for (int i = 0; i < kWide<T>; ++i) {
        const float gx = gr.packs[k][i] * xr.packs[k][i];
        dot += gx * weight[first + i];
        if constexpr (kWeight) sums[k * kWide<T> + i] += gx * scale;
      }
    }
    if (dx == nullptr) continue;
    const float along = team.sum(dot, parity) * scale * scale * scale / static_cast<float>(width);
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int first = R::first(team, k);
      if (first >= here) continue;
      Pack<T, kWide<T>> out;
#pragma unroll
      for (int i = 0; i < kWide<T>; ++i) {
        const float d = scale * gr.packs[k][i] * weight[first + i] - along * xr.packs[k][i];
        out.set(i, based ? base.packs[k][i] + d : d);
      }
      out.store(dx + r * width + first);
    }
  }
  if constexpr (kWeight) {
    for (int row = 0; row < kRows; ++row) {
      if (team.row == row) {
#pragma unroll
        for (int k = 0; k < kPacks; ++k) {
          const int first = R::first(team, k);
          if (first >= width) continue;
#pragma unroll
          for (int i = 0; i < kWide<T>; ++i) {
            float& s = shared_sums[first + i];
            s = row == 0 ? sums[k * kWide<T> + i] : s + sums[k * kWide<T> + i];
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

// Calls fn<kTeam, kPacks>() with the smallest team whose registers hold a row, or returns false
// when rows do not fit.
template <class T, class Fn>
bool with_team(int width, std::initializer_list<const void*> pointers, Fn&& fn) {
  for (const void* p : pointers) {
    if (p != nullptr && !is_wide<T>(p, width)) return false;
  }
  const int packs = static_cast<int>(ceil_div(width / kWide<T>, 32));  // of a lane of one warp
  if (packs <= 1) {
    fn.template operator()<1, 1>();
  } else if (packs <= 2) {
    fn.template operator()<1, 2>();
  } else if (packs <= 4) {
    fn.template operator()<2, 2>();
  } else if (packs <= 8) {
    fn.template operator()<4, 2>();
  } else if (packs <= 16) {
    fn.template operator()<8, 2>();
  } else if (packs <= 32) {
    fn.template operator()<8, 4>();
  } else {
    return false;
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
  const bool fits = with_team<T>(width, {p, q, s, y}, [&]<int kTeam, int kPacks>() {
    const auto blocks = static_cast<unsigned>(ceil_div(rows, Team<kTeam>::kRows));
    forward_kernel<T, kTeam, kPacks>
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
  const bool fits = with_team<T>(width, {px, pg, thr, d}, [&]<int kTeam, int kPacks>() {
    // A grid that fits the device at once walks over all rows.
    const auto blocks = static_cast<unsigned>(
        std::min<std::int64_t>(ceil_div(rows, Team<kTeam>::kRows), kResident * multiprocessors()));
    if (wants_weight) {
      partial = Tensor::empty({blocks, width}, DType::f32, x.device());
      backward_kernel<T, kTeam, kPacks, true>
          <<<blocks, kThreads, width * sizeof(float), compute_stream()>>>(
              px, w, inv, pg, thr, rows, width, d, add, device_data<float>(partial));
    } else {
      backward_kernel<T, kTeam, kPacks, false><<<blocks, kThreads, 0, compute_stream()>>>(
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

}  // namespace fulcrum::ops::cuda
