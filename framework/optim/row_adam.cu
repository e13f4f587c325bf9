#include <algorithm>
#include <cmath>

#include "framework/core/cuda_kernel.cuh"
#include "framework/optim/row_adam_cuda.h"

namespace fulcrum::cuda {
namespace {

constexpr int kThreads = 256;

constexpr int kResident = 3;  // blocks of a multiprocessor at once

struct Table {
  float* weight;
  float* first;
  float* second;
  std::int32_t* row_steps;
  int width;
};

// A pack of neighbouring elements: gradient, weight and moments.
template <int kPack>
struct Elements {
  Pack<float, kPack> g, w, m, v;

  __device__ void load(const float* gradient, const Table& table, std::int64_t at) {
    g = Pack<float, kPack>::load(gradient);
    w = Pack<float, kPack>::load(table.weight + at);
    m = Pack<float, kPack>::load(table.first + at);
    v = Pack<float, kPack>::load(table.second + at);
  }
  __device__ void update(const AdamConstants<float>& constants, const Table& table,
                         std::int64_t at) {
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      adam_element(constants, g.values[j], w.values[j], m.values[j], v.values[j]);
    }
    w.store(table.weight + at);
    m.store(table.first + at);
    v.store(table.second + at);
  }
};

// What a thread holds of a row.
template <int kPack>
struct RowPart {
  std::int64_t row;
  std::int32_t step;  // of the row, for its first lane
  Elements<kPack> elements;
};

// A block takes kThreads / lanes rows at a time, and of a row that has more packs than lanes a lane
// takes several. Rows lie anywhere in the table: while a thread updates one, the next one's
// elements are on their way, and the number of the one after that. A row's first lane counts its
// step and shares the corrections that follow from it.
template <int kPack>
__global__ void __launch_bounds__(kThreads, kResident)
    row_adam_kernel(const std::int64_t* rows, const float* values, std::int64_t capacity,
                    const std::int64_t* count, Table table, int lanes,
                    AdamConstants<float> constants, float log_beta1, float log_beta2) {
  __shared__ float2 corrections[2][kThreads];  // step size and inverse root; taken in turn
  const int rows_at_once = kThreads / lanes;
  const int slot = threadIdx.x / lanes;
  const bool used = slot < rows_at_once;
  const int column = (threadIdx.x % lanes) * kPack;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * rows_at_once;
  std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * rows_at_once;  // of the block

  // Beyond the count there are numbers too, if of no meaning: no need to wait for it.
  const auto number = [&](std::int64_t i) { return used && i < capacity ? rows[i] : 0; };
  RowPart<kPack> now, next;
  now.row = number(first + slot);
  next.row = number(first + stride + slot);
  const std::int64_t n = *count;
  const auto fetch = [&](RowPart<kPack>& part, std::int64_t i) {
    if (!used || i >= n) return;
    part.elements.load(values + i * table.width + column, table, part.row * table.width + column);
    if (column == 0) part.step = table.row_steps[part.row] + 1;
  };
  fetch(now, first + slot);
  for (int turn = 0; first < n; first += stride, turn ^= 1) {
    const std::int64_t i = first + slot;
    const std::int64_t row_after = number(i + 2 * stride);
    fetch(next, i + stride);
    const bool live = used && i < n;
    if (live && column == 0) {
      table.row_steps[now.row] = now.step;
      // 1 − βᵗ, without the cancellation where β is near 1
      const float correction1 = -expm1f(static_cast<float>(now.step) * log_beta1);
      const float correction2 = -expm1f(static_cast<float>(now.step) * log_beta2);
      corrections[turn][slot] = {constants.step_size / correction1, 1.0f / sqrtf(correction2)};
    }
    __syncthreads();
    if (live) {
      AdamConstants<float> corrected = constants;
      corrected.step_size = corrections[turn][slot].x;
      corrected.inverse_root = corrections[turn][slot].y;
      const std::int64_t at = now.row * table.width;
      now.elements.update(corrected, table, at + column);
#pragma unroll 1
      for (int c = column + lanes * kPack; c < table.width; c += lanes * kPack) {
        now.elements.load(values + i * table.width + c, table, at + c);
        now.elements.update(corrected, table, at + c);
      }
    }
    now = next;
    next.row = row_after;
  }
}

template <int kPack>
void launch(const ops::MergedRows& gradient, const Table& table,
            const AdamConstants<float>& constants, double beta1, double beta2) {
  const int lanes = std::min(table.width / kPack, kThreads);
  const std::int64_t capacity = gradient.rows.numel();
  const std::int64_t blocks =
      std::min<std::int64_t>(ceil_div(capacity, kThreads / lanes), kResident * multiprocessors());
  row_adam_kernel<kPack><<<static_cast<unsigned>(blocks), kThreads, 0, compute_stream()>>>(
      device_data<std::int64_t>(gradient.rows), device_data<float>(gradient.values), capacity,
      device_data<std::int64_t>(gradient.count), table, lanes, constants,
      static_cast<float>(std::log(beta1)), static_cast<float>(std::log(beta2)));
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace

void row_adam(const ops::MergedRows& gradient, const RowAdamTensors& tensors,
              const AdamConstants<float>& constants, double beta1, double beta2) {
  if (gradient.values.numel() == 0) return;
  const Table table{device_data<float>(tensors.weight), device_data<float>(tensors.first),
                    device_data<float>(tensors.second),
                    device_data<std::int32_t>(tensors.row_steps),
                    static_cast<int>(tensors.weight.dim(1))};
  if (table.width % 4 == 0) {
    launch<4>(gradient, table, constants, beta1, beta2);
  } else {
    launch<1>(gradient, table, constants, beta1, beta2);
  }
}

}  // namespace fulcrum::cuda
