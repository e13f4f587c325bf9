#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

#include <bit>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <limits>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/counted_segments_cuda.h"
#include "framework/ops/segments_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;

template <class Key>
__global__ void __launch_bounds__(kThreads)
    number_kernel(const std::int64_t* part, int n, int first, Key* keys, std::int32_t* positions) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= n) return;
  keys[first + i] = static_cast<Key>(part[i]);
  positions[first + i] = first + i;
}

// 1 where a sorted key opens a segment.
template <class Key>
struct Opens {
  const Key* keys;
  __host__ __device__ std::int32_t operator()(std::int32_t i) const {
    return i == 0 || keys[i] != keys[i - 1] ? 1 : 0;
  }
};

template <class Key>
__global__ void __launch_bounds__(kThreads)
    segments_kernel(const Key* keys, const std::int32_t* segments, int n,
                    std::int64_t* segment_keys, std::int32_t* offsets, std::int64_t* count) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= n) return;
  const std::int32_t segment = segments[i];
  if (i == 0 || segments[i - 1] != segment) {
    segment_keys[segment - 1] = static_cast<std::int64_t>(keys[i]);
    offsets[segment - 1] = i;
  }
  if (i == n - 1) *count = segment;
}

// Calls one of CUB's functions twice: for the bytes of scratch memory, and for the work.
template <class Fn>
void with_scratch(Device device, Fn&& fn) {
  std::size_t bytes = 0;
  FULCRUM_CUDA_CHECK(fn(nullptr, bytes));
  const Tensor scratch = Tensor::empty({static_cast<std::int64_t>(std::max<std::size_t>(bytes, 1))},
                                       DType::u8, device);
  FULCRUM_CUDA_CHECK(fn(scratch.raw(), bytes));
}

unsigned blocks_for(std::int64_t n) { return static_cast<unsigned>(ceil_div(n, kThreads)); }

template <class Key>
Segments sort(const std::vector<Tensor>& parts, int n, int bits) {
  const Device device = parts.front().device();
  const DType dtype = sizeof(Key) == 4 ? DType::i32 : DType::i64;
  const Tensor unsorted = Tensor::empty({n}, dtype, device);
  const Tensor sorted = Tensor::empty({n}, dtype, device);
  const Tensor unordered = Tensor::empty({n}, DType::i32, device);
  auto* from = static_cast<Key*>(unsorted.raw());
  auto* keys = static_cast<Key*>(sorted.raw());
  int first = 0;
  for (const Tensor& part : parts) {
    const auto count = static_cast<int>(part.numel());
    if (count == 0) continue;
    number_kernel<<<blocks_for(count), kThreads, 0, compute_stream()>>>(
        device_data<std::int64_t>(part), count, first, from, device_data<std::int32_t>(unordered));
    FULCRUM_CUDA_LAUNCHED();
    first += count;
  }
  const Segments segments{Tensor::empty_like(unordered), Tensor::empty_like(unordered),
                          Tensor::empty({n}, DType::i64, device), Tensor::empty_like(unordered),
                          Tensor::empty({1}, DType::i64, device)};
  auto* numbers = device_data<std::int32_t>(segments.numbers);
  with_scratch(device, [&](void* scratch, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortPairs(scratch, bytes, static_cast<const Key*>(from), keys,
                                           static_cast<const std::int32_t*>(unordered.raw()),
                                           device_data<std::int32_t>(segments.positions), n, 0,
                                           bits, compute_stream());
  });
  const auto opens = thrust::make_transform_iterator(
      thrust::make_counting_iterator<std::int32_t>(0), Opens<Key>{keys});
  with_scratch(device, [&](void* scratch, std::size_t& bytes) {
    return cub::DeviceScan::InclusiveSum(scratch, bytes, opens, numbers, n, compute_stream());
  });
  segments_kernel<<<blocks_for(n), kThreads, 0, compute_stream()>>>(
      keys, numbers, n, device_data<std::int64_t>(segments.keys),
      device_data<std::int32_t>(segments.offsets), device_data<std::int64_t>(segments.count));
  FULCRUM_CUDA_LAUNCHED();
  return segments;
}

// Counters take a pass over all keys that there may be, sorting ever more over those that there
// are.
bool counters_pay(std::int64_t n, std::int64_t bound) {
  constexpr std::int64_t kAlways = 1 << 16;
  constexpr std::int64_t kMost = 1 << 24;  // where a tile adds up all the tiles before it
  return bound <= kMost && bound <= std::max(kAlways, 16 * n);
}

}  // namespace

Segments find_segments(const std::vector<Tensor>& parts, std::int64_t bound) {
  std::int64_t n = 0;
  for (const Tensor& part : parts) n += part.numel();
  FULCRUM_REQUIRE(n <= std::numeric_limits<std::int32_t>::max() - kThreads,
                  "find_segments: {} keys are more than 31 bits count", n);
  if (n == 0) {
    const Device device = parts.front().device();
    const Tensor none = Tensor::empty({0}, DType::i32, device);
    return {none, none, Tensor::empty({0}, DType::i64, device), none,
            Tensor::zeros({1}, DType::i64, device)};
  }
  if (counters_pay(n, bound)) return count_segments(parts, bound).segments;
  const int bits = std::max<int>(
      1, std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(bound, 1) - 1)));
  return bits < 32 ? sort<std::uint32_t>(parts, static_cast<int>(n), bits)
                   : sort<std::uint64_t>(parts, static_cast<int>(n), bits);
}

}  // namespace fulcrum::ops::cuda
