#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/short_convolution_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kChannels = 32;  // of a block, one a lane
constexpr int kWarps = 32;
constexpr int kAtOnce = 20;  // parts that a thread asks for before it adds

// Every so many-th of the parts, from one of them on; `values` is the channel in part 0.
__device__ float sum_of_parts(const float* values, std::int64_t stride, std::int64_t part,
                              std::int64_t parts, int every) {
  float sum = 0.0f;
  for (; part < parts; part += std::int64_t{kAtOnce} * every) {
    float some[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const std::int64_t at = part + std::int64_t{i} * every;
      some[i] = at < parts ? values[at * stride] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) sum += some[i];
  }
  return sum;
}

// A block takes its channels of all taps, up to kWarps taps at a time: warps that share a tap sum
// every so many-th part of it, then a warp for each tap adds up what they found.
__global__ void __launch_bounds__(kWarps * 32)
    weights_kernel(const float* partial, std::int64_t parts, int d, int taps, const float* weight,
                   const float* norm, float* d_weight, bool add_weight, float* d_norm,
                   bool add_norm) {
  __shared__ float sums[kWarps][kChannels];
  __shared__ float of_norm[kWarps][kChannels];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int channel = blockIdx.x * kChannels + lane;
  const bool owns = channel < d;
  const float scale = owns && norm != nullptr ? norm[channel] : 1.0f;
  float norm_sum = 0.0f;  // of the first warp
  for (int first = 0; first < taps; first += kWarps) {
    const int now = min(taps - first, kWarps);
    const int sharers = kWarps / now;
    const std::int64_t at = static_cast<std::int64_t>(channel) * taps + first + warp;
    const bool adds_up = owns && warp < now;
    // Known before the sums are, that nothing waits for them later.
    const float tap = adds_up ? weight[at] : 0.0f;
    const float before = adds_up && d_weight != nullptr && add_weight ? d_weight[at] : 0.0f;
    float sum = 0.0f;
    if (owns && warp < now * sharers) {
      sum = sum_of_parts(partial + static_cast<std::int64_t>(first + warp % now) * d + channel,
                         std::int64_t{taps} * d, warp / now, parts, sharers);
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (adds_up) {
      float total = 0.0f;
      for (int s = 0; s < sharers; ++s) total += sums[s * now + warp][lane];
      if (d_weight != nullptr) d_weight[at] = before + scale * total;
      of_norm[warp][lane] = tap * total;
    }
    __syncthreads();
    if (warp == 0) {
      for (int j = 0; j < now; ++j) norm_sum += of_norm[j][lane];
    }
  }
  if (d_norm == nullptr || warp != 0 || !owns) return;
  d_norm[channel] = add_norm ? d_norm[channel] + norm_sum : norm_sum;
}

}  // namespace

void convolution_weights(const ConvolutionInputs& in, const Tensor& parts,
                         const GradSlot::Target& d_weight, const GradSlot::Target& d_norm) {
  const int d = static_cast<int>(in.weight.dim(0));
  weights_kernel<<<static_cast<unsigned>(ceil_div(d, kChannels)), kWarps * 32, 0,
                   compute_stream()>>>(
      device_data<float>(parts), parts.dim(0), d, static_cast<int>(in.weight.dim(1)),
      device_data<float>(in.weight), device_data<float>(in.norm_weight),
      device_data<float>(d_weight.tensor), d_weight.add, device_data<float>(d_norm.tensor),
      d_norm.add);
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
