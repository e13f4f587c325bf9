#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/short_convolution_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kChannels = 8;  // of a block: few, so that many multiprocessors share the work
constexpr int kRows = 32;     // threads of a channel
constexpr int kAtOnce = 20;   // parts that a thread asks for before it adds

// `count` values, `step` apart.
__device__ float sum_of_parts(const float* values, std::int64_t step, int count) {
  float sum = 0.0f;
  for (; count > 0; count -= kAtOnce) {
    float some[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      some[i] = i < count ? *values : 0.0f;
      values += step;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) sum += some[i];
  }
  return sum;
}

// A block takes its channels of all taps, up to kRows taps at a time: rows of threads that share a
// tap sum every so many-th part of it, then a row for each tap adds up what they found.
__global__ void __launch_bounds__(kRows* kChannels)
    weights_kernel(const float* partial, int parts, int d, int taps, const float* weight,
                   const float* norm, float* d_weight, bool add_weight, float* d_norm,
                   bool add_norm) {
  __shared__ float sums[kRows][kChannels];
  __shared__ float of_norm[kRows][kChannels];
  const int column = threadIdx.x % kChannels;
  const int row = threadIdx.x / kChannels;
  const int channel = blockIdx.x * kChannels + column;
  const bool owns = channel < d;
  const float scale = owns && norm != nullptr ? norm[channel] : 1.0f;
  float norm_sum = 0.0f;  // of the first row
  for (int first = 0; first < taps; first += kRows) {
    const int now = min(taps - first, kRows);
    const int sharers = kRows / now;
    const int share = row / now;
    const std::int64_t at = static_cast<std::int64_t>(channel) * taps + first + row;
    const bool adds_up = owns && row < now;
    // Known before the sums are, that nothing waits for them later.
    const float tap = adds_up ? weight[at] : 0.0f;
    const float before = adds_up && d_weight != nullptr && add_weight ? d_weight[at] : 0.0f;
    float sum = 0.0f;
    if (owns && share < sharers) {
      const std::int64_t part = std::int64_t{taps} * d;
      const float* mine = partial + share * part;
      mine += std::int64_t{first + row - share * now} * d + channel;
      sum = sum_of_parts(mine, sharers * part, (parts - share + sharers - 1) / sharers);
    }
    sums[row][column] = sum;
    __syncthreads();
    if (adds_up) {
      float total = 0.0f;
      for (int s = 0; s < sharers; ++s) total += sums[s * now + row][column];
      if (d_weight != nullptr) d_weight[at] = before + scale * total;
      of_norm[row][column] = tap * total;
    }
    __syncthreads();
    if (row == 0) {
      for (int j = 0; j < now; ++j) norm_sum += of_norm[j][column];
    }
  }
  if (d_norm == nullptr || row != 0 || !owns) return;
  d_norm[channel] = add_norm ? d_norm[channel] + norm_sum : norm_sum;
}

}  // namespace

void convolution_weights(const ConvolutionInputs& in, const Tensor& parts,
                         const GradSlot::Target& d_weight, const GradSlot::Target& d_norm) {
  const int d = static_cast<int>(in.weight.dim(0));
  weights_kernel<<<static_cast<unsigned>(ceil_div(d, kChannels)), kRows * kChannels, 0,
                   compute_stream()>>>(
      device_data<float>(parts), static_cast<int>(parts.dim(0)), d,
      static_cast<int>(in.weight.dim(1)), device_data<float>(in.weight),
      device_data<float>(in.norm_weight), device_data<float>(d_weight.tensor), d_weight.add,
      device_data<float>(d_norm.tensor), d_norm.add);
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
