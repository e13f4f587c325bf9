#include "framework/ops/permute_cuda.h"
#include "framework/ops/warp_top_k.cuh"

namespace fulcrum::ops::cuda {
namespace {

// A stable counting sort in two launches. Slots are cut into at most kBlocks parts of equal size,
// one a block. The first launch counts the experts of each part; the second turns all counts into
// places, each block for itself, and writes. Dropped slots count as one more expert behind the
// last, so that what is behind the experts' rows gets its −1 on the way.
constexpr int kBlocks = 128;
constexpr int kWarps = 16;
constexpr int kThreads = kWarps * 32;
constexpr int kMostBins = kMostExperts + 1;
static_assert(kBlocks == 32 * 4, "a lane reads the counts of four blocks at once");

// Slots of a block; a warp of it takes a 16th of them, in order. Counts within a block have 16
// bits.
constexpr std::int64_t kMostOfBlock = (1 << 16) - kThreads;

__device__ inline int bin_of(const std::int32_t* expert, int slot, int count) {
  const int e = expert[slot];
  return e < 0 ? count : e;
}

// counts[bin, block]
__global__ void __launch_bounds__(kThreads)
    count_kernel(const std::int32_t* expert, int slots, int of_block, int count,
                 std::int32_t* counts) {
  __shared__ int histogram[kMostBins];
  for (int e = threadIdx.x; e <= count; e += kThreads) histogram[e] = 0;
  __syncthreads();
  const int first = static_cast<int>(blockIdx.x) * of_block;
  const int end = min(slots, first + of_block);
  for (int s = first + static_cast<int>(threadIdx.x); s < end; s += kThreads) {
    atomicAdd(&histogram[bin_of(expert, s, count)], 1);
  }
  __syncthreads();
  for (int e = threadIdx.x; e <= count; e += kThreads) {
    counts[e * kBlocks + static_cast<int>(blockIdx.x)] = histogram[e];
  }
}

// Calls fn(slot, bin, lanes of the same bin) for the slots of this warp's part, 32 at a time; lanes
// behind the end have bin −1.
template <class Fn>
__device__ inline void for_each_slot(const std::int32_t* expert, int slots, int of_block, int count,
                                     Fn&& fn) {
  const int of_warp = of_block / kWarps;
  const int first =
      static_cast<int>(blockIdx.x) * of_block + static_cast<int>(threadIdx.x / 32) * of_warp;
  for (int i = 0; i < of_warp; i += 32) {
    const int s = first + i + static_cast<int>(threadIdx.x % 32);
    const int bin = s < slots ? bin_of(expert, s, count) : -1;
    fn(s, bin, __match_any_sync(kAllLanes, bin));
  }
}

__global__ void __launch_bounds__(kThreads)
    place_kernel(const std::int32_t* expert, int slots, int of_block, int count,
                 const std::int32_t* counts, std::int64_t* source, std::int64_t* slot,
                 std::int64_t* offsets) {
  __shared__ int start[kMostBins];   // first row of a bin, then of this block in it
  __shared__ int before[kMostBins];  // slots of the bin in earlier blocks
  __shared__ std::uint16_t of_warps[kWarps][kMostBins];  // of a warp, then of the warps before it
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int bins = count + 1;
  for (int e = threadIdx.x; e < bins; e += kThreads) {
    for (int w = 0; w < kWarps; ++w) of_warps[w][e] = 0;
  }
  for (int e = warp; e < bins; e += kWarps) {
    const int4 part = *reinterpret_cast<const int4*>(counts + e * kBlocks + 4 * lane);
    const int of_lane[4] = {part.x, part.y, part.z, part.w};
    int all = 0;
    int earlier = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int block = 4 * lane + i;
      const int value = block < static_cast<int>(gridDim.x) ? of_lane[i] : 0;
      all += value;
      if (block < static_cast<int>(blockIdx.x)) earlier += value;
    }
    all = __reduce_add_sync(kAllLanes, all);
    earlier = __reduce_add_sync(kAllLanes, earlier);
    if (lane == 0) {
      start[e] = all;
      before[e] = earlier;
    }
  }
  __syncthreads();

  // Warp 0 sums the bins' sizes into their first rows while all count their own slots.
  if (warp == 0) {
    int sum = 0;
    for (int first = 0; first < bins; first += 32) {
      const int e = first + lane;
      const int size = e < bins ? start[e] : 0;
      int through = size;
#pragma unroll
      for (int offset = 1; offset < 32; offset *= 2) {
        const int below = __shfl_up_sync(kAllLanes, through, offset);
        if (lane >= offset) through += below;
      }
      if (e < bins) start[e] = sum + through - size;
      sum += __shfl_sync(kAllLanes, through, 31);
    }
  }
  for_each_slot(expert, slots, of_block, count, [&](int, int bin, unsigned same) {
    if (bin >= 0 && lane == __ffs(static_cast<int>(same)) - 1) {
      of_warps[warp][bin] = static_cast<std::uint16_t>(of_warps[warp][bin] + __popc(same));
    }
    __syncwarp();
  });
  __syncthreads();

  for (int e = threadIdx.x; e < bins; e += kThreads) {
    if (blockIdx.x == 0) offsets[e] = start[e];
    start[e] += before[e];
    int sum = 0;
    for (int w = 0; w < kWarps; ++w) {
      const int own = of_warps[w][e];
      of_warps[w][e] = static_cast<std::uint16_t>(sum);
      sum += own;
    }
  }
  __syncthreads();

  for_each_slot(expert, slots, of_block, count, [&](int s, int bin, unsigned same) {
    int row = 0;
    if (bin >= 0) {
      row = start[bin] + of_warps[warp][bin] + __popc(same & ((1u << lane) - 1));
      slot[s] = bin < count ? row : -1;
      source[row] = bin < count ? s : -1;
    }
    __syncwarp();
    if (bin >= 0 && lane == __ffs(static_cast<int>(same)) - 1) {
      of_warps[warp][bin] = static_cast<std::uint16_t>(of_warps[warp][bin] + __popc(same));
    }
    __syncwarp();
  });
}

}  // namespace

void make_permutation(const Tensor& experts, std::int64_t count, const Permutation& p) {
  FULCRUM_REQUIRE(count <= kMostExperts, "make_permutation: CUDA takes up to {} experts; got {}",
                  kMostExperts, count);
  const std::int64_t slots = experts.numel();
  const std::int64_t of_block =
      ceil_div(std::max<std::int64_t>(slots, 1), kBlocks * kThreads) * kThreads;
  FULCRUM_REQUIRE(of_block <= kMostOfBlock, "make_permutation: CUDA sorts up to {} slots; got {}",
                  kMostOfBlock * kBlocks, experts.shape());
  if (slots == 0) return p.offsets.zero();
  const auto blocks = static_cast<unsigned>(ceil_div(slots, of_block));
  const Tensor counts = Tensor::empty({count + 1, kBlocks}, DType::i32, experts.device());
  count_kernel<<<blocks, kThreads, 0, compute_stream()>>>(
      device_data<std::int32_t>(experts), static_cast<int>(slots), static_cast<int>(of_block),
      static_cast<int>(count), device_data<std::int32_t>(counts));
  place_kernel<<<blocks, kThreads, 0, compute_stream()>>>(
      device_data<std::int32_t>(experts), static_cast<int>(slots), static_cast<int>(of_block),
      static_cast<int>(count), device_data<std::int32_t>(counts),
      device_data<std::int64_t>(p.source), device_data<std::int64_t>(p.slot),
      device_data<std::int64_t>(p.offsets));
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
