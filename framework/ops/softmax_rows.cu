#include <algorithm>

#include "framework/ops/cross_entropy_cuda.h"
#include "framework/ops/softmax_pack.cuh"
#include "framework/ops/softmax_sums.cuh"

// One pass over the logits: a row is read into the registers of a block, or of a cluster of blocks
// that divide it and exchange their sums through distributed shared memory, and leaves them as its
// gradient. Rows too wide for eight blocks, or for a chip without clusters, are read twice.

namespace fulcrum::ops::cuda {
namespace {

using namespace softmax;

constexpr int kMostPacks = 8;  // that a thread holds
constexpr float kLn2 = 0.6931471805599453f;

struct Problem {
  std::int64_t stride;
  int vocabulary;
  const std::int32_t* targets;
  float scale, z_weight;
  float* nll;
  float* lse;
};

// What the sum over a row says about it.
struct Row {
  float offset;  // of exponents
  float nll, lse;
  float factor;  // gradient = factor · 2^(x · log₂e − offset), less scale at the target

  __device__ Row(const Partial& total, float chosen, const Problem& z) {
    offset = total.offset();
    // The rounding of the offset is in the sum; here it is taken out again.
    const float residue = fmaf(total.top, kLog2E, -offset);
    const float log_sum = (log2f(total.sum) - residue) * kLn2;
    nll = (total.top - chosen) + log_sum;
    lse = total.top + log_sum;
    factor = z.scale * (1.0f + 2.0f * z.z_weight * lse) / total.sum;
  }
  __device__ float gradient(float x) const { return factor * exp2_fast(fmaf(x, kLog2E, -offset)); }
};

// The thread that owns the pack of the target writes the losses, and the target's gradient over
// what it has just stored there.
template <class T, bool kGradient>
__device__ void finish(const Row& r, std::int64_t row, float chosen, T* at_target,
                       const Problem& z) {
  z.nll[row] = r.nll;
  z.lse[row] = r.lse;
  if constexpr (kGradient) *at_target = from_float<T>(r.gradient(chosen) - z.scale);
}

// Of packs first … last of a row, whose target is ignored.
template <class T, bool kGradient>
__device__ void ignore(T* x, std::int64_t row, int first, int last, const Problem& z) {
  if constexpr (kGradient) {
    const Held<T> zero = {};
    for (int p = first + threadIdx.x; p < last; p += kThreads) zero.store(x + p * kWide<T>);
  }
  if (first == 0 && threadIdx.x == 0) z.nll[row] = z.lse[row] = 0.0f;
}

// Block b of a cluster takes packs b · share … of a row.
template <class T, int kPacks, bool kClustered, bool kGradient>
__global__ void __launch_bounds__(kThreads, 2)
    held_kernel(T* logits, Problem z, int share, int blocks) {
  constexpr int kN = kWide<T>;
  const int rank = kClustered ? blockIdx.x % blocks : 0;
  const std::int64_t row = kClustered ? blockIdx.x / blocks : blockIdx.x;
  T* x = logits + row * z.stride;
  const int first = rank * share;
  const int last = min(first + share, (z.vocabulary + kN - 1) / kN);
  const int target = z.targets[row];
  const int mine_first = first + threadIdx.x;
  T* const at = x + mine_first * kN;
  Held<T> v[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int p = mine_first + k * kThreads;
    if (p < last) v[k] = Held<T>::load(at + k * kThreads * kN);
  }
  if (target < 0) return ignore<T, kGradient>(x, row, first, last, z);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  if constexpr (kClustered) asm volatile("barrier.cluster.arrive.relaxed.aligned;");
#endif
  const int own = target / kN - first;
  const bool owner = own >= 0 && own < share && own % kThreads == threadIdx.x;
  const float chosen = owner ? to_float(x[target]) : 0.0f;

  Partial mine{kLowest, 0.0f};
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int p = mine_first + k * kThreads;
    if (p >= last) continue;
    v[k].mask_tail(p, z.vocabulary);
    mine.top = fmaxf(mine.top, v[k].largest());
    v[k].forget();
  }
  const float offset = mine.offset();
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (mine_first + k * kThreads >= last) continue;
#pragma unroll
    for (int i = 0; i < kN; ++i) mine.sum += exp2_fast(fmaf(v[k][i], kLog2E, -offset));
    v[k].forget();
  }
  const Row r(total_of<kClustered>(mine, rank, blocks), chosen, z);
  if constexpr (kGradient) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int p = mine_first + k * kThreads;
      if (p >= last) continue;
      v[k].replace([&](float logit) { return r.gradient(logit); });
      v[k].store(at + k * kThreads * kN);
    }
  }
  if (owner) finish<T, kGradient>(r, row, chosen, x + target, z);
}

// A row of any width, read twice.
template <class T, bool kGradient>
__global__ void __launch_bounds__(kThreads) streamed_kernel(T* logits, Problem z) {
  constexpr int kN = kWide<T>;
  const std::int64_t row = blockIdx.x;
  T* x = logits + row * z.stride;
  const int last = (z.vocabulary + kN - 1) / kN;
  const int target = z.targets[row];
  if (target < 0) return ignore<T, kGradient>(x, row, 0, last, z);
  const bool owner = target / kN % kThreads == threadIdx.x;
  const float chosen = owner ? to_float(x[target]) : 0.0f;

  Partial mine{kLowest, 0.0f};
#pragma unroll 4
  for (int p = threadIdx.x; p < last; p += kThreads) {
    auto v = Held<T>::load(x + static_cast<std::int64_t>(p) * kN);
    v.mask_tail(p, z.vocabulary);
    const float top = fmaxf(mine.top, v.largest());
    mine = {top, mine.over(top)};
    const float offset = mine.offset();
#pragma unroll
    for (int i = 0; i < kN; ++i) mine.sum += exp2_fast(fmaf(v[i], kLog2E, -offset));
  }
  const Row r(total_of<false>(mine, 0, 1), chosen, z);
  if constexpr (kGradient) {
#pragma unroll 4
    for (int p = threadIdx.x; p < last; p += kThreads) {
      auto v = Held<T>::load(x + static_cast<std::int64_t>(p) * kN);
      v.replace([&](float logit) { return r.gradient(logit); });
      v.store(x + static_cast<std::int64_t>(p) * kN);
    }
  }
  if (owner) finish<T, kGradient>(r, row, chosen, x + target, z);
}

bool has_clusters() {
  static const bool value = [] {
    int device = 0;
    int major = 0;
    FULCRUM_CUDA_CHECK(cudaGetDevice(&device));
    FULCRUM_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    return major >= 9;
  }();
  return value;
}

template <class T, int kPacks, bool kClustered, bool kGradient>
void launch_held(T* logits, const Problem& z, std::int64_t rows, int share, int blocks) {
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(rows * blocks));
  config.blockDim = dim3(kThreads);
  config.stream = compute_stream();
  config.attrs = &cluster;
  config.numAttrs = kClustered ? 1 : 0;
  FULCRUM_CUDA_CHECK(cudaLaunchKernelEx(&config, held_kernel<T, kPacks, kClustered, kGradient>,
                                        logits, z, share, blocks));
}

template <class T, bool kGradient>
void launch(T* logits, const Problem& z, std::int64_t rows) {
  constexpr int kN = kWide<T>;
  const int packs = (z.vocabulary + kN - 1) / kN;
  if (packs <= 2 * kThreads) {
    return launch_held<T, 2, false, kGradient>(logits, z, rows, packs, 1);
  }
  if (packs <= 4 * kThreads) {
    return launch_held<T, 4, false, kGradient>(logits, z, rows, packs, 1);
  }
  if (packs <= kMostPacks * kThreads) {
    return launch_held<T, kMostPacks, false, kGradient>(logits, z, rows, packs, 1);
  }
  int blocks = 2;
  while (packs > blocks * kMostPacks * kThreads) blocks *= 2;
  if (has_clusters() && blocks <= kMostBlocks) {
    const auto share = static_cast<int>(ceil_div(packs, blocks));
    return launch_held<T, kMostPacks, true, kGradient>(logits, z, rows, share, blocks);
  }
  streamed_kernel<T, kGradient>
      <<<static_cast<unsigned>(rows), kThreads, 0, compute_stream()>>>(logits, z);
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace

void softmax_rows(const Tensor& logits, std::int64_t vocabulary, const Tensor& targets,
                  double scale, double z_weight, bool gradient, const Tensor& nll,
                  const Tensor& lse) {
  const std::int64_t rows = logits.dim(0);
  if (rows == 0) return;
  dispatch_cuda("linear_cross_entropy", logits.dtype(), [&]<class T>() {
    T* x = device_data<T>(logits);
    FULCRUM_CHECK(is_wide<T>(x, logits.dim(1)) && vocabulary <= logits.dim(1) && vocabulary > 0,
                  "softmax over {} columns of {}", vocabulary, logits.shape());
    const Problem z{logits.dim(1),
                    static_cast<int>(vocabulary),
                    static_cast<const std::int32_t*>(targets.raw()),
                    static_cast<float>(scale),
                    static_cast<float>(z_weight),
                    device_data<float>(nll),
                    device_data<float>(lse)};
    gradient ? launch<T, true>(x, z, rows) : launch<T, false>(x, z, rows);
  });
}

}  // namespace fulcrum::ops::cuda
