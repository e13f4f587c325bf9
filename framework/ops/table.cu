#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/table_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 4;  // packs that a thread asks for before it waits for one

// A thread moves packs of kPack elements; those of a row follow each other, so that neighbouring
// threads read a row together and write without gaps.
template <class T, int kPack>
__global__ void __launch_bounds__(kThreads)
    read_kernel(const float* table, const std::int64_t* index, std::int64_t packs, int packs_of_row,
                int width, T* out) {
  const std::int64_t block = static_cast<std::int64_t>(blockIdx.x) * (kThreads * kPerThread);
  std::int64_t first[kPerThread];  // element of the table
#pragma unroll
  for (int k = 0; k < kPerThread; ++k) {
    const std::int64_t i = block + k * kThreads + threadIdx.x;
    if (i >= packs) continue;
    std::int64_t row;
    int pack;
    if (packs <= 0x7fffffff) {
      row = static_cast<std::uint32_t>(i) / static_cast<std::uint32_t>(packs_of_row);
      pack = static_cast<int>(static_cast<std::uint32_t>(i) -
                              static_cast<std::uint32_t>(row) * packs_of_row);
    } else {
      row = i / packs_of_row;
      pack = static_cast<int>(i - row * packs_of_row);
    }
    first[k] = index[row] * width + pack * kPack;
  }
  // In packs of 16 bytes at most.
  constexpr int kPart = kPack < 4 ? kPack : 4;
  Pack<float, kPart> values[kPerThread][kPack / kPart];
#pragma unroll
  for (int k = 0; k < kPerThread; ++k) {
    const std::int64_t i = block + k * kThreads + threadIdx.x;
    if (i >= packs) continue;
#pragma unroll
    for (int part = 0; part < kPack / kPart; ++part) {
      values[k][part] = Pack<float, kPart>::load(table + first[k] + part * kPart);
    }
  }
#pragma unroll
  for (int k = 0; k < kPerThread; ++k) {
    const std::int64_t i = block + k * kThreads + threadIdx.x;
    if (i >= packs) continue;
    Pack<T, kPack> row;
#pragma unroll
    for (int j = 0; j < kPack; ++j) row.set(j, values[k][j / kPart][j % kPart]);
    row.store(out + i * kPack);
  }
}

template <class T, int kPack>
void read(const Tensor& table, const Tensor& index, const Tensor& out) {
  const int width = static_cast<int>(table.dim(1));
  const std::int64_t packs = out.numel() / kPack;
  read_kernel<T, kPack><<<static_cast<unsigned>(ceil_div(packs, kThreads * kPerThread)), kThreads,
                          0, compute_stream()>>>(device_data<float>(table),
                                                 device_data<std::int64_t>(index), packs,
                                                 width / kPack, width, device_data<T>(out));
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace

void read_table(const Tensor& table, const Tensor& index, const Tensor& out) {
  if (out.numel() == 0) return;
  const std::int64_t width = table.dim(1);
  dispatch_cuda("read_table", out.dtype(), [&]<class T>() {
    if (is_wide<T>(out.raw(), width) && is_wide<float>(table.raw(), width)) {
      read<T, kWide<T>>(table, index, out);
    } else if (is_wide<float>(table.raw(), width)) {
      read<T, 4>(table, index, out);
    } else {
      read<T, 1>(table, index, out);
    }
  });
}

}  // namespace fulcrum::ops::cuda
