#include <algorithm>
#include <cmath>

#include "framework/core/cuda_kernel.cuh"
#include "framework/optim/row_adam_cuda.h"

namespace fulcrum::cuda {
namespace {

constexpr int kThreads = 256;

struct Table {
  float* weight;
  float* moments;
  std::int32_t* row_steps;
  int width;
};

template <int kPack>
__device__ void update(const AdamConstants<float>& constants, const Pack<float, kPack>& gradient,
                       Pack<float, kPack>& weight, Pack<float, kPack>& first,
                       Pack<float, kPack>& second) {
#pragma unroll
  for (int j = 0; j < kPack; ++j) {
    adam_element(constants, gradient.values[j], weight.values[j], first.values[j],
                 second.values[j]);
  }
}

// A block takes blockDim.x / lanes rows; of a row that has more packs than lanes, a lane takes
// several. A row's first lane counts its step and shares the corrections that follow from it, while
// the packs are on their way.
template <int kPack>
__global__ void __launch_bounds__(kThreads)
    row_adam_kernel(const std::int64_t* rows, const float* values, const std::int64_t* count,
                    Table table, int lanes, AdamConstants<float> constants, float log_beta1,
                    float log_beta2) {
  __shared__ float2 corrections[kThreads];  // step size and inverse root
  const int rows_of_block = kThreads / lanes;
  const int slot = threadIdx.x / lanes;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * rows_of_block + slot;
  if (static_cast<std::int64_t>(blockIdx.x) * rows_of_block >= *count) return;
  const bool live = slot < rows_of_block && i < *count;
  int column = (threadIdx.x % lanes) * kPack;
  float* weight = nullptr;
  float* first = nullptr;
  float* second = nullptr;
  Pack<float, kPack> g, w, m, v;
  if (live) {
    const std::int64_t row = rows[i];
    weight = table.weight + row * table.width;
    first = table.moments + 2 * row * table.width;
    second = first + table.width;
    g = Pack<float, kPack>::load(values + i * table.width + column);
    w = Pack<float, kPack>::load(weight + column);
    m = Pack<float, kPack>::load(first + column);
    v = Pack<float, kPack>::load(second + column);
    if (column == 0) {
      const std::int32_t t = table.row_steps[row] + 1;
      table.row_steps[row] = t;
      // 1 − βᵗ, without the cancellation where β is near 1
      const float correction1 = -expm1f(static_cast<float>(t) * log_beta1);
      const float correction2 = -expm1f(static_cast<float>(t) * log_beta2);
      corrections[slot] = {constants.step_size / correction1, 1.0f / sqrtf(correction2)};
    }
  }
  __syncthreads();
  if (!live) return;
  constants.step_size = corrections[slot].x;
  constants.inverse_root = corrections[slot].y;
  while (true) {
    update(constants, g, w, m, v);
    w.store(weight + column);
    m.store(first + column);
    v.store(second + column);
    column += lanes * kPack;
    if (column >= table.width) return;
    g = Pack<float, kPack>::load(values + i * table.width + column);
    w = Pack<float, kPack>::load(weight + column);
    m = Pack<float, kPack>::load(first + column);
    v = Pack<float, kPack>::load(second + column);
  }
}

template <int kPack>
void launch(const ops::MergedRows& gradient, const Table& table,
            const AdamConstants<float>& constants, double beta1, double beta2) {
  const int lanes = std::min(table.width / kPack, kThreads);
  const std::int64_t blocks = ceil_div(gradient.rows.numel(), kThreads / lanes);
  row_adam_kernel<kPack><<<static_cast<unsigned>(blocks), kThreads, 0, compute_stream()>>>(
      device_data<std::int64_t>(gradient.rows), device_data<float>(gradient.values),
      device_data<std::int64_t>(gradient.count), table, lanes, constants,
      static_cast<float>(std::log(beta1)), static_cast<float>(std::log(beta2)));
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace

void row_adam(const ops::MergedRows& gradient, const RowAdamTensors& tensors,
              const AdamConstants<float>& constants, double beta1, double beta2) {
  if (gradient.values.numel() == 0) return;
  const Table table{device_data<float>(tensors.weight), device_data<float>(tensors.moments),
                    device_data<std::int32_t>(tensors.row_steps),
                    static_cast<int>(tensors.weight.dim(1))};
  if (table.width % 4 == 0) {
    launch<4>(gradient, table, constants, beta1, beta2);
  } else {
    launch<1>(gradient, table, constants, beta1, beta2);
  }
}

}  // namespace fulcrum::cuda
