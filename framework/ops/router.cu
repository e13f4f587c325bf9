#include "framework/ops/router_cuda.h"
#include "framework/ops/warp_top_k.cuh"

namespace fulcrum::ops::cuda {
namespace {

// A warp takes a token and holds its scores in registers; it walks over tokens with a fixed stride.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kMostTopK = 32;  // a lane keeps one slot of the token
constexpr int kMaskWords = kMostExperts / 32;
constexpr float kSumEps = 1e-20f;

// RouterOptions, as kernels take them.
struct Options {
  int k;
  bool sigmoid, renormalize, group_top2;
  float scale;
  int groups, top_groups;
};

Options options_of(const RouterOptions& o) {
  FULCRUM_REQUIRE(o.top_k <= kMostTopK, "route: CUDA chooses up to {} experts a token; got {}",
                  kMostTopK, o.top_k);
  return {static_cast<int>(o.top_k),
          o.sigmoid,
          o.renormalize,
          o.group_top2,
          static_cast<float>(o.route_scale),
          static_cast<int>(o.groups),
          static_cast<int>(o.top_groups)};
}

__device__ inline std::int64_t first_token() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
}
__device__ inline std::int64_t token_stride() {
  return static_cast<std::int64_t>(gridDim.x) * kWarps;
}

// Blocks that fill the device a few times over, so that each has several tokens a warp.
unsigned blocks_for(std::int64_t tokens) {
  return static_cast<unsigned>(
      std::min<std::int64_t>(ceil_div(tokens, kWarps), 6 * multiprocessors()));
}

// Logits to scores, in place; 0 behind the end of the row.
template <int kPerLane>
__device__ void score(bool sigmoid, int experts, float (&x)[kPerLane]) {
  const int lane = threadIdx.x % 32;
  if (sigmoid) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      x[i] = i * 32 + lane < experts ? 1.0f / (1.0f + expf(-x[i])) : 0.0f;
    }
    return;
  }
  float top = x[0];
#pragma unroll
  for (int i = 1; i < kPerLane; ++i) top = fmaxf(top, x[i]);
  top = warp_max(top);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    x[i] = i * 32 + lane < experts ? expf(x[i] - top) : 0.0f;
    sum += x[i];
  }
  const float inverse = 1.0f / warp_sum(sum);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) x[i] *= inverse;
}

// What a warp needs in shared memory to limit a token to some groups.
struct GroupScratch {
  float* choice;   // [experts]
  unsigned* open;  // [kMaskWords]: a bit for each group
};

__device__ inline float group_worth(const float* choice, int size, bool top2) {
  float first = -INFINITY;
  float second = -INFINITY;
  for (int i = 0; i < size; ++i) {
    const float c = choice[i];
    if (c > first) {
      second = first;
      first = c;
    } else if (c > second) {
      second = c;
    }
  }
  return top2 && size > 1 ? first + second : first;
}

// Takes the experts of all but the best groups out of `top`.
template <int kPerLane>
__device__ void close_groups(const Options& o, int experts, const float (&choice)[kPerLane],
                             const GroupScratch& scratch, WarpTopK<kPerLane>& top) {
  const int lane = threadIdx.x % 32;
  const int per_group = experts / o.groups;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (i * 32 + lane < experts) scratch.choice[i * 32 + lane] = choice[i];
  }
  scratch.open[lane] = 0;
  __syncwarp();
  WarpTopK<kPerLane> groups;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int g = i * 32 + lane;
    groups.key[i] =
        g < o.groups
            ? order_key(group_worth(scratch.choice + g * per_group, per_group, o.group_top2))
            : 0;
  }
  for (int m = 0; m < o.top_groups; ++m) {
    const int g = groups.pop();
    if (lane == 0) scratch.open[g / 32] |= 1u << (g % 32);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int g = min(i * 32 + lane, experts - 1) / per_group;
    if ((scratch.open[g / 32] >> (g % 32) & 1u) == 0) top.key[i] = 0;
  }
}

template <int kPerLane, bool kGroups>
__global__ void __launch_bounds__(kThreads)
    route_kernel(const float* logits, const float* bias, std::int64_t n, int experts, Options o,
                 float* scores, std::int32_t* selected, float* weights,
                 unsigned long long* counts) {
  extern __shared__ int histogram[];  // [experts]; with kGroups, the warps' scratch behind it
  for (int e = threadIdx.x; e < experts; e += kThreads) histogram[e] = 0;
  __syncthreads();
  const int lane = threadIdx.x % 32;
  GroupScratch scratch{};
  if constexpr (kGroups) {
    int* mine = histogram + experts + static_cast<int>(threadIdx.x / 32) * (experts + kMaskWords);
    scratch = {reinterpret_cast<float*>(mine), reinterpret_cast<unsigned*>(mine + experts)};
  }

  for (std::int64_t t = first_token(); t < n; t += token_stride()) {
    float s[kPerLane];
    load_row(logits + t * experts, experts, -INFINITY, s);
    score(o.sigmoid, experts, s);
    float choice[kPerLane];
    WarpTopK<kPerLane> top;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int e = i * 32 + lane;
      choice[i] = s[i];
      top.key[i] = 0;
      if (e >= experts) continue;
      scores[t * experts + e] = s[i];
      if (bias != nullptr) choice[i] += bias[e];
      top.key[i] = order_key(choice[i]);
    }
    if constexpr (kGroups) close_groups(o, experts, choice, scratch, top);

    int id = 0;           // the slot of this lane
    float chosen = 0.0f;  // its score
    for (int j = 0; j < o.k; ++j) {
      const int e = top.pop();
      const float value = __shfl_sync(kAllLanes, at(s, e / 32), e % 32);
      if (lane == j) {
        id = e;
        chosen = value;
      }
    }
    float factor = o.scale;
    if (o.renormalize) factor /= warp_sum(chosen) + kSumEps;
    if (lane < o.k) {
      selected[t * o.k + lane] = id;
      weights[t * o.k + lane] = factor * chosen;
      atomicAdd(&histogram[id], 1);
    }
  }

  __syncthreads();
  for (int e = threadIdx.x; e < experts; e += kThreads) {
    if (histogram[e] != 0) atomicAdd(&counts[e], static_cast<unsigned long long>(histogram[e]));
  }
}

template <int kPerLane>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const float* scores, const std::int32_t* selected, const std::int32_t* kept,
                    const float* dw, const float* ds, std::int64_t n, int experts, Options o,
                    float* dx, bool add) {
  const int lane = threadIdx.x % 32;
  for (std::int64_t t = first_token(); t < n; t += token_stride()) {
    float s[kPerLane];
    float g[kPerLane] = {};
    load_row(scores + t * experts, experts, 0.0f, s);
    if (ds != nullptr) load_row(ds + t * experts, experts, 0.0f, g);
    if (dw != nullptr) {
      int id = 0;
      float chosen = 0.0f;
      float d = 0.0f;  // gradient of this lane's slot
      if (lane < o.k) {
        id = selected[t * o.k + lane];
        chosen = scores[t * experts + id];
        if (kept[t * o.k + lane] >= 0) d = dw[t * o.k + lane];
      }
      float factor = o.scale;
      float shared = 0.0f;  // the part every selected score gets through the sum
      if (o.renormalize) {
        const float sum = warp_sum(chosen) + kSumEps;
        factor /= sum;
        shared = -warp_sum(d * factor * chosen / sum);
      }
      const float mine = shared + factor * d;
      for (int j = 0; j < o.k; ++j) {
        const int e = __shfl_sync(kAllLanes, id, j);
        const float value = __shfl_sync(kAllLanes, mine, j);
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
          if (e == i * 32 + lane) g[i] += value;
        }
      }
    }
    float mean = 0.0f;
    if (!o.sigmoid) {
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) mean += s[i] * g[i];
      mean = warp_sum(mean);
    }
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int e = i * 32 + lane;
      if (e >= experts) continue;
      const float d = s[i] * (o.sigmoid ? (1.0f - s[i]) * g[i] : g[i] - mean);
      float* target = dx + t * experts + e;
      *target = add ? *target + d : d;
    }
  }
}

}  // namespace

void route(const Tensor& logits, const Tensor& bias, const RouterOptions& options,
           const Routing& r) {
  const std::int64_t n = logits.dim(0);
  const auto experts = static_cast<int>(logits.dim(1));
  const Options o = options_of(options);
  if (n == 0) return;
  with_row_size("route", experts, [&]<int kPerLane>() {
    const auto launch = [&](auto kernel, std::size_t ints) {
      kernel<<<blocks_for(n), kThreads, ints * sizeof(int), compute_stream()>>>(
          device_data<float>(logits), device_data<float>(bias), n, experts, o,
          device_data<float>(r.scores), device_data<std::int32_t>(r.experts),
          device_data<float>(r.weights),
          reinterpret_cast<unsigned long long*>(device_data<std::int64_t>(r.counts)));
    };
    const auto size = static_cast<std::size_t>(experts);
    if (o.top_groups < o.groups) {
      launch(route_kernel<kPerLane, true>, size + kWarps * (size + kMaskWords));
    } else {
      launch(route_kernel<kPerLane, false>, size);
    }
  });
  FULCRUM_CUDA_LAUNCHED();
}

void route_backward(const Tensor& scores, const Tensor& selected, const Tensor& experts,
                    const Tensor& dw, const Tensor& ds, const RouterOptions& options,
                    const Tensor& dx, bool add) {
  const std::int64_t n = scores.dim(0);
  if (n == 0) return;
  with_row_size("route", scores.dim(1), [&]<int kPerLane>() {
    backward_kernel<kPerLane><<<blocks_for(n), kThreads, 0, compute_stream()>>>(
        device_data<float>(scores), device_data<std::int32_t>(selected),
        device_data<std::int32_t>(experts), device_data<float>(dw), device_data<float>(ds), n,
        static_cast<int>(scores.dim(1)), options_of(options), device_data<float>(dx), add);
  });
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
