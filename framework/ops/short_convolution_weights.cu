#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/short_convolution_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kChannels = 32;  // of a block, one a lane
constexpr int kWarps = 32;
constexpr int kAtOnce = 8;  // parts that a thread asks for before it adds

// A block takes its channels of all taps, up to kWarps taps at a time: warps that share a tap sum
// every so many-th part of it, then lanes of the first warps add up what the warps found.
__global__ void __launch_bounds__(kWarps * 32)
    weights_kernel(const float* partial, std::int64_t parts, int d, int taps, const float* weight,
                   const float* norm, float* d_weight, bool add_weight, float* d_norm,
                   bool add_norm) {
  __shared__ float sums[kWarps][kChannels];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int channel = blockIdx.x * kChannels + lane;
  const bool owns = channel < d;
  float norm_sum = 0.0f;  // of the first warp
  for (int first = 0; first < taps; first += kWarps) {
    const int now = min(taps - first, kWarps);
    const int sharers = kWarps / now;
    float sum = 0.0f;
    if (owns && warp < now * sharers) {
      const float* const of_tap = partial + static_cast<std::int64_t>(first + warp % now) * d;
#pragma unroll kAtOnce
      for (std::int64_t part = warp / now; part < parts; part += sharers) {
        sum += of_tap[part * taps * d + channel];
      }
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && owns) {
      for (int j = 0; j < now; ++j) {
        float total = 0.0f;
        for (int s = 0; s < sharers; ++s) total += sums[s * now + j][lane];
        const std::int64_t at = static_cast<std::int64_t>(channel) * taps + first + j;
        if (d_weight != nullptr) {
          const float g = norm == nullptr ? total : norm[channel] * total;
          d_weight[at] = add_weight ? d_weight[at] + g : g;
        }
        norm_sum += weight[at] * total;
      }
    }
    __syncthreads();
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
