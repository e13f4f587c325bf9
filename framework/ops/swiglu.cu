#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/swiglu_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

// A team of lanes of one warp takes a row: blockDim is (team, kThreads / team), a power of two
// each, so that a team's lanes are neighbours. A lane has a pack of each input in flight; enough
// warps fit a multiprocessor for that to fill the memory's pipe.
constexpr int kThreads = 256;

// What kernels know of a row's weight. weights null: it is 1.
struct Weights {
  const float* weights;
  const std::int64_t* source;
  const std::int64_t* slot;

  // −1: the row serves no slot.
  __device__ std::int64_t index(std::int64_t row) const {
    return weights == nullptr ? 0 : source[row];
  }
  __device__ float at(std::int64_t index) const {
    return weights == nullptr ? 1.0f : weights[index];
  }
};

Weights of(const RowWeights& rows) {
  return {device_data<float>(rows.weights), device_data<std::int64_t>(rows.source),
          device_data<std::int64_t>(rows.slot)};
}

__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

// Zeros in a row of `size` elements, by its team.
template <class T, int N>
__device__ inline void clear_row(T* row, int size) {
  for (int c = static_cast<int>(threadIdx.x) * N; c < size; c += static_cast<int>(blockDim.x) * N) {
    Pack<T, N>{}.store(row + c);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const T* __restrict__ gate_up, Weights w, std::int64_t rows, int f,
                   T* __restrict__ y) {
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (r >= rows) return;
  const T* gate = gate_up + r * 2 * f;
  const T* up = gate + f;
  T* out = y + r * f;
  const std::int64_t index = w.index(r);
  if (index < 0) return clear_row<T, N>(out, f);
  const float weight = w.at(index);
  for (int c = static_cast<int>(threadIdx.x) * N; c < f; c += static_cast<int>(blockDim.x) * N) {
    const auto a = Pack<T, N>::load(gate + c);
    const auto b = Pack<T, N>::load(up + c);
    Pack<T, N> to;
#pragma unroll
    for (int i = 0; i < N; ++i) to.set(i, weight * (a[i] * sigmoid(a[i]) * b[i]));
    to.store(out + c);
  }
}

// One row of the gradient; returns this lane's part of Σ g · silu(gate) · up.
template <class T, int N, bool kAdd>
__device__ inline float backward_row(const T* __restrict__ gate, const T* __restrict__ g,
                                     float weight, int f, T* __restrict__ d) {
  const T* up = gate + f;
  float dot = 0.0f;
  for (int c = static_cast<int>(threadIdx.x) * N; c < f; c += static_cast<int>(blockDim.x) * N) {
    const auto a = Pack<T, N>::load(gate + c);
    const auto b = Pack<T, N>::load(up + c);
    const auto q = Pack<T, N>::load(g + c);
    Pack<T, N> da, db;
    if constexpr (kAdd) {
      da = Pack<T, N>::load(d + c);
      db = Pack<T, N>::load(d + f + c);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float x = a[i];
      const float sig = sigmoid(x);
      const float silu = x * sig;
      const float through = weight * q[i];
      dot += q[i] * (silu * b[i]);
      const float dx = through * b[i] * (sig * (1.0f + x * (1.0f - sig)));
      const float dy = through * silu;
      da.set(i, kAdd ? da[i] + dx : dx);
      db.set(i, kAdd ? db[i] + dy : dy);
    }
    da.store(d + c);
    db.store(d + f + c);
  }
  return dot;
}

template <class T, int N, bool kAdd>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const T* __restrict__ gate_up, Weights w, const T* __restrict__ g,
                    std::int64_t rows, int f, T* __restrict__ d, float* dweights) {
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const bool there = r < rows;  // a warp's lanes stay together for the sum
  const std::int64_t index = there ? w.index(r) : -1;
  float dot = 0.0f;
  if (index >= 0) {
    dot = backward_row<T, N, kAdd>(gate_up + r * 2 * f, g + r * f, w.at(index), f, d + r * 2 * f);
  } else if (there && !kAdd) {
    clear_row<T, N>(d + r * 2 * f, 2 * f);
  }
  if (dweights == nullptr) return;
  __syncwarp();
  for (int offset = static_cast<int>(blockDim.x) / 2; offset > 0; offset /= 2) {
    dot += __shfl_xor_sync(0xffffffffu, dot, offset);
  }
  if (threadIdx.x != 0 || !there) return;
  if (index >= 0) dweights[index] = dot;
  if (w.slot[r] < 0) dweights[r] = 0.0f;  // as many slots as rows: this team's slot is dropped
}

// Lanes of a team: those that leave the fewest idle at the end of a row, many rather than few.
unsigned team_for(std::int64_t packs) {
  unsigned best = 32;
  for (unsigned lanes = 16; lanes >= 4; lanes /= 2) {
    if (ceil_div(packs, lanes) * lanes < ceil_div(packs, best) * best) best = lanes;
  }
  return best;
}

// Calls fn<N>(block, blocks) for rows of f elements.
template <class T, class Fn>
void launch(std::initializer_list<const Tensor*> tensors, std::int64_t rows, std::int64_t f,
            Fn&& fn) {
  bool wide = true;
  for (const Tensor* x : tensors) wide = wide && is_wide<T>(x->raw(), f);
  const unsigned team = team_for(wide ? f / kWide<T> : f);
  const dim3 block(team, kThreads / team);
  const auto blocks = static_cast<unsigned>(ceil_div(rows, block.y));
  if (wide) {
    fn.template operator()<kWide<T>>(blocks, block);
  } else {
    fn.template operator()<1>(blocks, block);
  }
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace

void swiglu(const Tensor& gate_up, const RowWeights& rows, const Tensor& y) {
  if (y.numel() == 0) return;
  dispatch_cuda("swiglu", y.dtype(), [&]<class T>() {
    launch<T>({&gate_up, &y}, y.dim(0), y.dim(1), [&]<int N>(unsigned blocks, dim3 block) {
      forward_kernel<T, N>
          <<<blocks, block, 0, compute_stream()>>>(device_data<T>(gate_up), of(rows), y.dim(0),
                                                   static_cast<int>(y.dim(1)), device_data<T>(y));
    });
  });
}

void swiglu_backward(const Tensor& gate_up, const RowWeights& rows, const Tensor& g,
                     const Tensor& d, bool add, const Tensor& dweights) {
  if (g.numel() == 0) {
    if (dweights.defined()) dweights.zero();
    return;
  }
  dispatch_cuda("swiglu", g.dtype(), [&]<class T>() {
    launch<T>({&gate_up, &g, &d}, g.dim(0), g.dim(1), [&]<int N>(unsigned blocks, dim3 block) {
      const auto kernel = add ? backward_kernel<T, N, true> : backward_kernel<T, N, false>;
      kernel<<<blocks, block, 0, compute_stream()>>>(
          device_data<T>(gate_up), of(rows), device_data<T>(g), g.dim(0),
          static_cast<int>(g.dim(1)), device_data<T>(d), device_data<float>(dweights));
    });
  });
}

}  // namespace fulcrum::ops::cuda
