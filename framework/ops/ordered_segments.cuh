#pragma once
// Putting the positions of each segment in ascending order.

#include "framework/core/cuda_kernel.cuh"

namespace fulcrum::ops::cuda {

constexpr int kSegmentThreads = 256;
constexpr int kFew = 8;       // positions that a thread orders
constexpr int kSome = 512;    // positions that a block orders by comparing each with each
constexpr int kWords = 8192;  // of the set of positions in which a block orders more
constexpr int kWindow = 32 * kWords;

// What a thread of a block has before it, and the block in all.
template <class V>
struct Scanned {
  V before, total;
};

// Every thread of the block calls it; the shared memory may be used again at once.
template <class V>
__device__ inline Scanned<V> block_scan(V x) {
  constexpr int kWarps = kSegmentThreads / 32;
  __shared__ V sums[kWarps];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  V upto = x;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const V other = __shfl_up_sync(0xffffffffu, upto, offset);
    if (lane >= offset) upto += other;
  }
  if (lane == 31) sums[warp] = upto;
  __syncthreads();
  V before = upto - x;
  V total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += sums[w];
    total += sums[w];
  }
  __syncthreads();
  return {before, total};
}

struct Unordered {
  const std::int32_t* positions;  // [n], those of a segment in any order
  const std::int32_t* offsets;
  const std::int64_t* count;  // of segments
  int n;

  __device__ int end(std::int64_t segment) const {
    return segment + 1 < *count ? offsets[segment + 1] : n;
  }
};

struct Ordered {
  std::int32_t* positions;  // [n]
  std::int32_t* numbers;    // [n], of segments, from 1
};

// Segments of more than kFew positions, in any order.
struct LongSegments {
  std::int32_t* list;
  std::int32_t* size;  // 0 at first

  __device__ void append(std::int32_t segment) const { list[atomicAdd(size, 1)] = segment; }
};

// A thread for each segment, if it is short.
__device__ inline void order_few(const Unordered& in, const Ordered& out, std::int64_t block) {
  const std::int64_t s = block * kSegmentThreads + threadIdx.x;
  if (s >= *in.count) return;
  const int begin = in.offsets[s];
  const int length = in.end(s) - begin;
  if (length > kFew) return;
  std::int32_t x[kFew];
#pragma unroll
  for (int k = 0; k < kFew; ++k) x[k] = k < length ? in.positions[begin + k] : 0x7fffffff;
  if (length > 1) {
    // neighbours are exchanged, from even places and odd places in turn
#pragma unroll
    for (int round = 0; round < kFew; ++round) {
#pragma unroll
      for (int k = round % 2; k + 1 < kFew; k += 2) {
        const std::int32_t low = min(x[k], x[k + 1]);
        x[k + 1] = max(x[k], x[k + 1]);
        x[k] = low;
      }
    }
  }
#pragma unroll
  for (int k = 0; k < kFew; ++k) {
    if (k >= length) continue;
    out.positions[begin + k] = x[k];
    out.numbers[begin + k] = static_cast<std::int32_t>(s) + 1;
  }
}

// A block for each segment of the list; `blocks` of them walk over it.
__device__ inline void order_many(const Unordered& in, const Ordered& out,
                                  const LongSegments& long_ones, int blocks) {
  // Either positions, or a set of them with a bit for each of a window; there a word in 32 stays
  // free, so that threads that walk over 32 words each do not meet in a bank.
  __shared__ std::uint32_t shared[kWords + kWords / 32];
  const auto word = [](int i) { return i + i / 32; };
  constexpr int kOwn = kWords / kSegmentThreads;  // words of a thread
  static_assert(kOwn == 32);
  const auto thread = static_cast<int>(threadIdx.x);
  for (int item = blockIdx.x; item < *long_ones.size; item += blocks) {
    const std::int32_t s = long_ones.list[item];
    const int begin = in.offsets[s];
    const int length = in.end(s) - begin;
    for (int i = thread; i < length; i += kSegmentThreads) out.numbers[begin + i] = s + 1;
    if (length <= kSome) {
      for (int i = thread; i < length; i += kSegmentThreads) {
        shared[i] = static_cast<std::uint32_t>(in.positions[begin + i]);
      }
      __syncthreads();
      for (int i = thread; i < length; i += kSegmentThreads) {
        const std::uint32_t own = shared[i];
        int rank = 0;
#pragma unroll 8
        for (int j = 0; j < length; ++j) rank += shared[j] < own ? 1 : 0;
        out.positions[begin + rank] = static_cast<std::int32_t>(own);
      }
      __syncthreads();
      continue;
    }
    int next = begin;  // the first place that is not filled yet
    for (std::int64_t window = 0; window < in.n && next < begin + length; window += kWindow) {
      for (int i = thread; i < kWords + kWords / 32; i += kSegmentThreads) shared[i] = 0;
      __syncthreads();
#pragma unroll 4
      for (int i = thread; i < length; i += kSegmentThreads) {
        const std::int64_t at = in.positions[begin + i] - window;
        if (at >= 0 && at < kWindow) {
          atomicOr(shared + word(static_cast<int>(at / 32)), 1u << (at % 32));
        }
      }
      __syncthreads();
      int own = 0;
#pragma unroll 8
      for (int k = 0; k < kOwn; ++k) own += __popc(shared[word(thread * kOwn + k)]);
      const Scanned<int> scanned = block_scan(own);
      int place = next + scanned.before;
      for (int k = 0; k < kOwn; ++k) {
        const int i = thread * kOwn + k;
        for (std::uint32_t bits = shared[word(i)]; bits != 0; bits &= bits - 1) {
          const int bit = __ffs(static_cast<int>(bits)) - 1;
          out.positions[place++] = static_cast<std::int32_t>(window + 32 * i + bit);
        }
      }
      next += scanned.total;
      __syncthreads();
    }
  }
}

// The first blocks take long segments, since those take longest.
static __global__ void __launch_bounds__(kSegmentThreads)
    order_kernel(Unordered in, Ordered out, LongSegments long_ones, int blocks_for_long) {
  if (static_cast<int>(blockIdx.x) < blocks_for_long) {
    order_many(in, out, long_ones, blocks_for_long);
  } else {
    order_few(in, out, static_cast<std::int64_t>(blockIdx.x) - blocks_for_long);
  }
}

}  // namespace fulcrum::ops::cuda
