// Each position draws its place among those of its key from the key's counter, in whatever order
// the device runs; sums of the counters then say where each key's positions go, and at last the
// positions of every key are put in order, which makes the result the same in every run. Most keys
// have few positions, which a thread orders in registers; the others are listed for blocks.
#include <algorithm>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/counted_segments_cuda.h"
#include "framework/ops/ordered_segments.cuh"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = kSegmentThreads;
constexpr int kRun = 16;                // neighbouring counters that a thread takes
constexpr int kTile = kThreads * kRun;  // counters of a block

using Packed = unsigned long long;  // different keys in the high half, positions in the low one

__device__ inline Packed packed(std::int32_t count) {
  return (static_cast<Packed>(count > 0 ? 1 : 0) << 32) | static_cast<Packed>(count);
}

// Equal keys of a warp draw together: a key may be that of all positions.
template <class Key>
__global__ void __launch_bounds__(kThreads)
    draw_kernel(const Key* part, int n, int first, std::int32_t* counts, std::int32_t* draws) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  const int key = i < n ? static_cast<int>(part[i]) : -1;
  const unsigned equal = __match_any_sync(0xffffffffu, key);
  const int lane = threadIdx.x % 32;
  const int leader = __ffs(static_cast<int>(equal)) - 1;
  int before = 0;
  if (lane == leader && key >= 0) before = atomicAdd(counts + key, __popc(equal));
  before = __shfl_sync(0xffffffffu, before, leader);
  if (key >= 0) draws[first + i] = before + __popc(equal & ((1u << lane) - 1u));
}

__device__ inline void load_run(const std::int32_t* p, std::int32_t (&run)[kRun]) {
#pragma unroll
  for (int k = 0; k < kRun; k += 4) {
    const int4 four = *reinterpret_cast<const int4*>(p + k);
    run[k] = four.x, run[k + 1] = four.y, run[k + 2] = four.z, run[k + 3] = four.w;
  }
}

__global__ void __launch_bounds__(kThreads)
    tile_sums_kernel(const std::int32_t* counts, Packed* sums) {
  std::int32_t run[kRun];
  load_run(counts + static_cast<std::int64_t>(blockIdx.x) * kTile + threadIdx.x * kRun, run);
  Packed sum = 0;
#pragma unroll
  for (int k = 0; k < kRun; ++k) sum += packed(run[k]);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Makes counts the first place of each key, and lists the keys of many positions.
__global__ void __launch_bounds__(kThreads)
    places_kernel(std::int32_t* counts, const Packed* sums, std::int64_t* keys,
                  std::int32_t* offsets, std::int64_t* count, LongSegments long_ones) {
  Packed before = 0;  // of all earlier tiles
  for (unsigned tile = threadIdx.x; tile < blockIdx.x; tile += kThreads) before += sums[tile];
  before = block_sum<kThreads>(before);

  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTile + threadIdx.x * kRun;
  std::int32_t run[kRun];
  load_run(counts + first, run);
  Packed own = 0;
#pragma unroll
  for (int k = 0; k < kRun; ++k) own += packed(run[k]);
  const Scanned<Packed> scanned = block_scan(own);
  Packed next = before + scanned.before;
#pragma unroll
  for (int k = 0; k < kRun; ++k) {
    const auto place = static_cast<std::int32_t>(next & 0xffffffffu);
    if (run[k] > 0) {
      keys[next >> 32] = first + k;
      offsets[next >> 32] = place;
      if (run[k] > kFew) long_ones.append(static_cast<std::int32_t>(next >> 32));
    }
    next += packed(run[k]);
    run[k] = place;
  }
#pragma unroll
  for (int k = 0; k < kRun; k += 4) {
    *reinterpret_cast<int4*>(counts + first + k) =
        make_int4(run[k], run[k + 1], run[k + 2], run[k + 3]);
  }
  if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) {
    *count = static_cast<std::int64_t>((before + scanned.total) >> 32);
  }
}

template <class Key>
__global__ void __launch_bounds__(kThreads)
    place_kernel(const Key* part, int n, int first, const std::int32_t* places,
                 const std::int32_t* draws, std::int32_t* placed) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < n) placed[places[part[i]] + draws[first + i]] = first + i;
}

unsigned blocks_for(std::int64_t n) { return static_cast<unsigned>(ceil_div(n, kThreads)); }

// Calls fn(keys, count, first) for the keys of every part that has some.
template <class Key, class Fn>
void for_parts(const std::vector<Tensor>& parts, Fn&& fn) {
  int first = 0;
  for (const Tensor& part : parts) {
    const auto count = static_cast<int>(part.numel());
    if (count == 0) continue;
    fn(static_cast<const Key*>(part.raw()), count, first);
    FULCRUM_CUDA_LAUNCHED();
    first += count;
  }
}

template <class Key>
CountedSegments count(const std::vector<Tensor>& parts, int n, std::int64_t bound) {
  const Device device = parts.front().device();
  const auto integers = [&](std::int64_t size) {
    return Tensor::empty({size}, DType::i32, device);
  };
  const Segments segments{integers(n), integers(n), Tensor::empty({n}, DType::i64, device),
                          integers(n), Tensor::empty({1}, DType::i64, device)};
  const std::int64_t tiles = bound / kTile + 1;  // one counter more than keys, at least
  // and at the end the length of the list of segments that blocks put in order
  const Tensor zeros = Tensor::zeros({tiles * kTile + 4}, DType::i32, device);
  auto* counts = device_data<std::int32_t>(zeros);
  const Tensor sums = Tensor::empty({tiles}, DType::i64, device);
  auto* tile_sums = reinterpret_cast<Packed*>(device_data<std::int64_t>(sums));
  auto* draws = device_data<std::int32_t>(segments.positions);  // until positions are known
  const Tensor unordered = integers(n);
  auto* placed = device_data<std::int32_t>(unordered);

  const Tensor list = integers(n / (kFew + 1) + 1);
  const LongSegments long_ones{device_data<std::int32_t>(list), counts + tiles * kTile};

  for_parts<Key>(parts, [&](const Key* keys, int size, int first) {
    draw_kernel<<<blocks_for(size), kThreads, 0, compute_stream()>>>(keys, size, first, counts,
                                                                     draws);
  });
  tile_sums_kernel<<<static_cast<unsigned>(tiles), kThreads, 0, compute_stream()>>>(counts,
                                                                                    tile_sums);
  FULCRUM_CUDA_LAUNCHED();
  places_kernel<<<static_cast<unsigned>(tiles), kThreads, 0, compute_stream()>>>(
      counts, tile_sums, device_data<std::int64_t>(segments.keys),
      device_data<std::int32_t>(segments.offsets), device_data<std::int64_t>(segments.count),
      long_ones);
  FULCRUM_CUDA_LAUNCHED();
  for_parts<Key>(parts, [&](const Key* keys, int size, int first) {
    place_kernel<<<blocks_for(size), kThreads, 0, compute_stream()>>>(keys, size, first, counts,
                                                                      draws, placed);
  });
  const Unordered in{placed, device_data<std::int32_t>(segments.offsets),
                     device_data<std::int64_t>(segments.count), n};
  const Ordered out{draws, device_data<std::int32_t>(segments.numbers)};
  const auto blocks_for_long =
      static_cast<int>(std::min<std::int64_t>(n / (kFew + 1), 2 * multiprocessors()));
  order_kernel<<<static_cast<unsigned>(blocks_for_long) + blocks_for(n), kThreads, 0,
                 compute_stream()>>>(in, out, long_ones, blocks_for_long);
  FULCRUM_CUDA_LAUNCHED();
  return {segments, zeros};
}

}  // namespace

CountedSegments count_segments(const std::vector<Tensor>& parts, std::int64_t bound) {
  std::int64_t n = 0;
  for (const Tensor& part : parts) n += part.numel();
  constexpr std::int64_t kMost = 0x7fffffff - kTile;
  FULCRUM_REQUIRE(n > 0 && n <= kMost && bound <= kMost,
                  "count_segments: {} keys below {} are more than 31 bits count", n, bound);
  return parts.front().dtype() == DType::i32
             ? count<std::int32_t>(parts, static_cast<int>(n), bound)
             : count<std::int64_t>(parts, static_cast<int>(n), bound);
}

}  // namespace fulcrum::ops::cuda
