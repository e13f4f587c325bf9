// Backward of the norm: blocks that all fit the device at once walk over the rows, summing the
// weight's gradient in registers on the way.
#include <algorithm>

#include "framework/core/async_copy.cuh"
#include "framework/ops/norm_cuda.h"
#include "framework/ops/norm_rows.cuh"

namespace fulcrum::ops::cuda {
namespace {

// What a thread reads of the next rows is on its way into shared memory while it works on one. No
// other thread reads it, so that no barrier is needed. Of each of kStages rows: x, g and, where
// based, what dx is added to, a pack of 16 bytes a thread each, and the row's inverse.
template <int kPacks>
struct Ring {
  static constexpr int kStages = kPacks > 2 ? 2 : 3;
  // Blocks of a multiprocessor at once; with the registers of weights and sums, more do not fit.
  static constexpr int resident(bool based) { return kPacks > 2 ? 1 : based ? 2 : 3; }

  char* memory;
  int arrays;  // 2, or 3 where based

  __host__ __device__ static constexpr int stage_bytes(int arrays) {
    return kNormThreads * (arrays * kPacks * 16 + static_cast<int>(sizeof(float)));
  }
  static constexpr int bytes(int arrays) { return kStages * stage_bytes(arrays); }

  __device__ char* pack(int stage, int array, int k) const {
    return memory + stage * stage_bytes(arrays) +
           ((array * kPacks + k) * kNormThreads + static_cast<int>(threadIdx.x)) * 16;
  }
  __device__ float* inverse(int stage) const {
    return reinterpret_cast<float*>(memory + stage * stage_bytes(arrays) +
                                    arrays * kPacks * kNormThreads * 16) +
           threadIdx.x;
  }
};

template <class T>
struct Inputs {
  const T *x, *g, *base;  // base: null, or what dx is added to
  const float *weight, *inverse;
  std::int64_t rows;
  int width;
};

template <class T, int kTeam, int kPacks, bool kWeight>
__global__ void __launch_bounds__(kNormThreads, Ring<kPacks>::resident(false))
    backward_kernel(Inputs<T> in, T* dx, float* partial) {
  using R = Row<T, kTeam, kPacks>;
  using P = Pack<T, kWide<T>>;
  constexpr int kStages = Ring<kPacks>::kStages;
  constexpr int kRows = Team<kTeam>::kRows;
  extern __shared__ __align__(16) char memory[];
  const Team<kTeam> team;
  const Ring<kPacks> ring{memory, in.base == nullptr ? 2 : 3};
  const int width = in.width;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kRows;
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kRows;  // of the block's rows

  Weights<kWide<T>> weights[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (R::first(team, k) < width) {
      weights[k] = Weights<kWide<T>>::load(in.weight + R::first(team, k));
    }
  }
  // A group of copies for every call, if an empty one, so that waiting can count groups.
  const auto fetch = [&](std::int64_t block, int stage) {
    const std::int64_t r = block + team.row;
    if (r < in.rows) {
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        const std::int64_t at = r * width + R::first(team, k);
        if (R::first(team, k) >= width) continue;
        copy_async<16>(ring.pack(stage, 0, k), in.x + at);
        copy_async<16>(ring.pack(stage, 1, k), in.g + at);
        if (in.base != nullptr) copy_async<16>(ring.pack(stage, 2, k), in.base + at);
      }
      copy_async<4>(ring.inverse(stage), in.inverse + r);
    }
    commit_copies();
  };
#pragma unroll
  for (int s = 0; s + 1 < kStages; ++s) fetch(begin + s * step, s);

  float sums[kWeight ? kPacks * kWide<T> : 1] = {};
  int parity = 0;
  int stage = 0;
  for (std::int64_t block = begin; block < in.rows; block += step, parity ^= 1) {
    const int before = stage == 0 ? kStages - 1 : stage - 1;
    fetch(block + (kStages - 1) * step, before);  // where the last row was
    wait_for_copies<kStages - 1>();
    const std::int64_t r = block + team.row;
    const int here = r < in.rows ? width : 0;
    R x, g;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (R::first(team, k) >= here) continue;
      x.packs[k] = P::load(reinterpret_cast<const T*>(ring.pack(stage, 0, k)));
      g.packs[k] = P::load(reinterpret_cast<const T*>(ring.pack(stage, 1, k)));
    }
    const float scale = here > 0 ? *ring.inverse(stage) : 0.0f;
    float dot = 0.0f;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (R::first(team, k) >= here) continue;
#pragma unroll
      for (int i = 0; i < kWide<T>; ++i) {
        const float gx = g.packs[k][i] * x.packs[k][i];
        dot += gx * weights[k][i];
        if constexpr (kWeight) sums[k * kWide<T> + i] += gx * scale;
      }
    }
    if (dx != nullptr) {
      const float along = team.sum(dot, parity) * scale * scale * scale / static_cast<float>(width);
      x.stay_packed();
      g.stay_packed();
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        const int first = R::first(team, k);
        if (first >= here) continue;
        P base, out;
        if (in.base != nullptr) base = P::load(reinterpret_cast<const T*>(ring.pack(stage, 2, k)));
#pragma unroll
        for (int i = 0; i < kWide<T>; ++i) {
          const float d = scale * g.packs[k][i] * weights[k][i] - along * x.packs[k][i];
          out.set(i, in.base != nullptr ? base[i] + d : d);
        }
        out.store(dx + r * width + first);
      }
    }
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }
  if constexpr (kWeight) {
    // The teams of the block add theirs in order, where the ring was.
    wait_for_copies<0>();
    __syncthreads();
    auto* shared_sums = reinterpret_cast<float*>(memory);
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
    for (int i = threadIdx.x; i < width; i += kNormThreads) {
      partial[static_cast<std::int64_t>(blockIdx.x) * width + i] = shared_sums[i];
    }
  }
}

// Rows that cannot be held, or read in packs: element by element, one kernel for each half.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    backward_any_kernel(const T* x, const float* weight, const float* inverse, const T* g,
                        const T* through, int width, T* dx, bool add) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * width;
  const float scale = inverse[blockIdx.x];
  float dot = 0.0f;
  for (int i = threadIdx.x; i < width; i += kNormThreads) {
    dot += to_float(g[at + i]) * to_float(x[at + i]) * weight[i];
  }
  const float along =
      block_sum<kNormThreads>(dot) * scale * scale * scale / static_cast<float>(width);
  for (int i = threadIdx.x; i < width; i += kNormThreads) {
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
  const int column = blockIdx.y * kNormThreads + threadIdx.x;
  if (column >= width) return;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kRowsOfPart;
  const std::int64_t end = first + kRowsOfPart < rows ? first + kRowsOfPart : rows;
  float sum = 0.0f;
  for (std::int64_t r = first; r < end; ++r) {
    sum += to_float(g[r * width + column]) * to_float(x[r * width + column]) * inverse[r];
  }
  partial[static_cast<std::int64_t>(blockIdx.x) * width + column] = sum;
}

template <class T, int kTeam, int kPacks, bool kWeight>
void launch(unsigned blocks, const Inputs<T>& in, T* dx, float* partial) {
  const auto kernel = &backward_kernel<T, kTeam, kPacks, kWeight>;
  const int bytes = Ring<kPacks>::bytes(in.base == nullptr ? 2 : 3);
  static_assert(Ring<kPacks>::bytes(2) >=
                kTeam * 32 * kPacks * kWide<T> * static_cast<int>(sizeof(float)));
  FULCRUM_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  kernel<<<blocks, kNormThreads, static_cast<std::size_t>(bytes), compute_stream()>>>(in, dx,
                                                                                      partial);
}

template <class T>
Tensor backward(const Tensor& x, const Tensor& weight, const Tensor& inverse, const Tensor& g,
                const Tensor& through, const Tensor& dx, bool add, bool wants_weight) {
  const auto width = static_cast<int>(x.dim(-1));
  T* d = device_data<T>(dx);
  const T* thr = device_data<T>(through);
  const T* base = d == nullptr ? nullptr : thr != nullptr ? thr : add ? d : nullptr;
  const Inputs<T> in{
      device_data<T>(x),           device_data<T>(g), base, device_data<float>(weight),
      device_data<float>(inverse), x.numel() / width, width};
  Tensor partial;
  const bool fits =
      with_team<T, 2, 4>(width, in.weight, {in.x, in.g, base, d}, [&]<int kTeam, int kPacks>() {
        const auto blocks = static_cast<unsigned>(
            std::min<std::int64_t>(ceil_div(in.rows, Team<kTeam>::kRows),
                                   Ring<kPacks>::resident(base != nullptr) * multiprocessors()));
        if (wants_weight) {
          partial = Tensor::empty({blocks, width}, DType::f32, x.device());
          launch<T, kTeam, kPacks, true>(blocks, in, d, device_data<float>(partial));
        } else {
          launch<T, kTeam, kPacks, false>(blocks, in, d, nullptr);
        }
      });
  if (!fits) {
    if (d != nullptr) {
      backward_any_kernel<<<static_cast<unsigned>(in.rows), kNormThreads, 0, compute_stream()>>>(
          in.x, in.weight, in.inverse, in.g, thr, width, d, add);
    }
    if (wants_weight) {
      const std::int64_t parts = ceil_div(in.rows, kRowsOfPart);
      partial = Tensor::empty({parts, width}, DType::f32, x.device());
      const dim3 grid(static_cast<unsigned>(parts),
                      static_cast<unsigned>(ceil_div(width, kNormThreads)));
      weight_any_kernel<<<grid, kNormThreads, 0, compute_stream()>>>(
          in.x, in.inverse, in.g, in.rows, width, device_data<float>(partial));
    }
  }
  FULCRUM_CUDA_LAUNCHED();
  return partial;
}

}  // namespace

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
