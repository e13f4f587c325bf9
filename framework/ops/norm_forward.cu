// Forward: each team takes one row, and a lane asks for 128 bytes at once, which with four blocks a
// multiprocessor is what keeps memory busy while other teams reduce and write.
#include <algorithm>

#include "framework/ops/norm_cuda.h"
#include "framework/ops/norm_rows.cuh"

namespace fulcrum::ops::cuda {
namespace {

// With kAdd, x = a + b, which sum receives.
template <class T, int kTeam, int kPacks, bool kAdd>
__global__ void __launch_bounds__(kNormThreads, kAdd&& kPacks > 4 ? 2 : 4)
    forward_kernel(const T* a, const T* b, const float* weight, float eps, std::int64_t rows,
                   int width, T* sum, T* normed, float* inverse) {
  using R = Row<T, kTeam, kPacks>;
  const Team<kTeam> team;
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * Team<kTeam>::kRows + team.row;
  const int here = r < rows ? width : 0;  // elements of this team
  R x;
  x.load(a + r * width, team, here);
  if constexpr (kAdd) {
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
  x.stay_packed();
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int first = R::first(team, k);
    if (first >= here) continue;
    const auto w = Weights<kWide<T>>::load(weight + first);
    Pack<T, kWide<T>> out;
#pragma unroll
    for (int i = 0; i < kWide<T>; ++i) out.set(i, x.packs[k][i] * scale * w[i]);
    out.store(normed + r * width + first);
  }
  if (team.lane == 0 && here > 0) inverse[r] = scale;
}

// A block takes a row element by element, in two passes over memory.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    forward_any_kernel(const T* a, const T* b, const float* weight, float eps, int width, T* sum,
                       T* normed, float* inverse) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * width;
  const T* x = a + at;
  float squares = 0.0f;
  for (int i = threadIdx.x; i < width; i += kNormThreads) {
    float v = to_float(x[i]);
    if (b != nullptr) {
      const T rounded = from_float<T>(v + to_float(b[at + i]));
      sum[at + i] = rounded;
      v = to_float(rounded);
    }
    squares += v * v;
  }
  if (b != nullptr) x = sum + at;  // each thread reads what it wrote
  const float scale = rsqrtf(block_sum<kNormThreads>(squares) / static_cast<float>(width) + eps);
  for (int i = threadIdx.x; i < width; i += kNormThreads) {
    normed[at + i] = from_float<T>(to_float(x[i]) * scale * weight[i]);
  }
  if (threadIdx.x == 0) inverse[blockIdx.x] = scale;
}

template <class T, bool kAdd>
void forward(const Tensor& a, const Tensor& b, const Tensor& weight, double eps, const Tensor& sum,
             const Tensor& normed, const Tensor& inverse) {
  const int width = static_cast<int>(a.dim(-1));
  const std::int64_t rows = a.numel() / width;
  const T* p = device_data<T>(a);
  const T* q = device_data<T>(b);
  const float* w = device_data<float>(weight);
  T* s = device_data<T>(sum);
  T* y = device_data<T>(normed);
  float* inv = device_data<float>(inverse);
  const auto e = static_cast<float>(eps);
  constexpr int kMost = kAdd ? 4 : 8;  // of each of the rows that a lane reads
  const bool fits = with_team<T, kMost, 8>(width, w, {p, q, s, y}, [&]<int kTeam, int kPacks>() {
    const auto blocks = static_cast<unsigned>(ceil_div(rows, Team<kTeam>::kRows));
    forward_kernel<T, kTeam, kPacks, kAdd>
        <<<blocks, kNormThreads, 0, compute_stream()>>>(p, q, w, e, rows, width, s, y, inv);
  });
  if (!fits) {
    forward_any_kernel<<<static_cast<unsigned>(rows), kNormThreads, 0, compute_stream()>>>(
        p, q, w, e, width, s, y, inv);
  }
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace

void rms_norm(const Tensor& a, const Tensor& b, const Tensor& weight, double eps, const Tensor& sum,
              const Tensor& normed, const Tensor& inverse) {
  if (a.numel() == 0) return;
  dispatch_cuda("rms_norm", a.dtype(), [&]<class T>() {
    b.defined() ? forward<T, true>(a, b, weight, eps, sum, normed, inverse)
                : forward<T, false>(a, b, weight, eps, sum, normed, inverse);
  });
}

}  // namespace fulcrum::ops::cuda
