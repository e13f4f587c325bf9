#include "framework/optim/clipping_cuda.h"
#include "framework/optim/tensor_list.cuh"

namespace fulcrum::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWidth = 4;     // elements of a pack: 16 bytes
constexpr int kInFlight = 8;  // packs that a thread loads before it adds
constexpr int kChunk = 2 * kThreads * kInFlight * kWidth;
constexpr int kSumThreads = 1024;

struct Entry {
  const float* data;
  std::int64_t count;
  const std::int64_t* rows;  // of which so many count; null: all
  std::int64_t width;
  int first_chunk;
};

// For thread 0; always in the same order.
template <int kBlock>
__device__ double block_sum_f64(double x) {
  __shared__ double partial[kBlock / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  if (threadIdx.x != 0) return 0.0;
  double total = 0.0;
  for (int i = 0; i < kBlock / 32; ++i) total += partial[i];
  return total;
}

template <class List>
__global__ void __launch_bounds__(kThreads)
    square_kernel(const __grid_constant__ List list, double* partial) {
  const Entry& entry = list.entries[list.index_of(static_cast<int>(blockIdx.x))];
  const std::int64_t start = static_cast<std::int64_t>(blockIdx.x - entry.first_chunk) * kChunk;
  const float* const x = entry.data + start;
  const std::int64_t left =
      (entry.rows == nullptr ? entry.count : *entry.rows * entry.width) - start;
  const int n = static_cast<int>(left < 0 ? 0 : left < kChunk ? left : kChunk);
  const int packs = reinterpret_cast<std::uintptr_t>(x) % 16 == 0 ? n / kWidth : 0;
  double sum = 0.0;
  const auto add = [&](float value) {
    sum = fma(static_cast<double>(value), static_cast<double>(value), sum);
  };
  for (int first = threadIdx.x; first < packs; first += kInFlight * kThreads) {
    float4 loaded[kInFlight] = {};
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int i = first + k * kThreads;
      if (i < packs) loaded[k] = __ldcs(reinterpret_cast<const float4*>(x) + i);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      add(loaded[k].x);
      add(loaded[k].y);
      add(loaded[k].z);
      add(loaded[k].w);
    }
  }
  for (int i = packs * kWidth + threadIdx.x; i < n; i += kThreads) add(x[i]);
  sum = block_sum_f64<kThreads>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kSumThreads)
    sum_kernel(const double* partial, std::int64_t n, double* total) {
  double sum = 0.0;
#pragma unroll 8
  for (std::int64_t i = threadIdx.x; i < n; i += kSumThreads) sum += partial[i];
  sum = block_sum_f64<kSumThreads>(sum);
  if (threadIdx.x == 0) *total = sum;
}

}  // namespace

Tensor square_sum(const std::vector<Summand>& summands, Device device) {
  std::vector<Entry> entries;
  std::int64_t chunks = 0;
  for (const auto& [values, rows] : summands) {
    if (values.numel() == 0) continue;
    entries.push_back({device_data<float>(values), values.numel(), device_data<std::int64_t>(rows),
                       values.numel() / values.dim(0), 0});
    chunks += ceil_div(values.numel(), kChunk);
  }
  const Tensor partial = Tensor::empty({chunks}, DType::f64, device);
  double* next = device_data<double>(partial);
  for_each_list(std::move(entries), kChunk, [&](const auto& list, unsigned blocks) {
    square_kernel<<<blocks, kThreads, 0, compute_stream()>>>(list, next);
    next += blocks;
  });
  const Tensor total = Tensor::empty({1}, DType::f64, device);
  sum_kernel<<<1, kSumThreads, 0, compute_stream()>>>(device_data<double>(partial), chunks,
                                                      device_data<double>(total));
  FULCRUM_CUDA_LAUNCHED();
  return total;
}

}  // namespace fulcrum::cuda
