#pragma once
// Sums of rows of values by segment: first of chunks of the ordered positions, whatever the
// segments, then of what chunks hold of segments that reach into others.

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/pack_sum.cuh"

namespace fulcrum::ops::cuda {

constexpr int kSumThreads = 256;
constexpr int kChunk = 32;      // sorted positions that one thread adds up, for a pack of columns
constexpr int kBatch = 8;       // of those, whose values it asks for at once
constexpr int kMostParts = 64;  // of a gradient

// Values of several parts, addressed as if they lay one after another.
template <class T>
struct Parts {
  const T* values[kMostParts];
  std::int32_t first[kMostParts];
  int count = 0;

  // With kOne there is one part, and no need to look for it.
  template <bool kOne>
  __device__ const T* row(std::int32_t position, int width) const {
    if constexpr (kOne) return values[0] + static_cast<std::int64_t>(position) * width;
    int part = 0;  // the last part that does not begin after position
    for (int step = kMostParts / 2; step > 0; step /= 2) {
      if (part + step < count && first[part + step] <= position) part += step;
    }
    return values[part] + static_cast<std::int64_t>(position - first[part]) * width;
  }
};

struct Sorted {
  const std::int32_t* positions;
  const std::int32_t* segments;  // from 1
  std::int32_t size;
};

// Sums of pieces: what a chunk holds of a segment that reaches into another chunk. A chunk has at
// most two: that of its first position and, when another, that of its last, which opened within it.
struct Pieces {
  float* left;
  float* right;
};

// A thread takes one pack of columns of one chunk.
struct Item {
  std::int32_t chunk;
  int column;
};

template <int kPack>
__device__ Item item_of(int width) {
  const auto index = static_cast<std::int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  const int packs = width / kPack;
  if (index <= 0x7fffffff) {
    const auto i = static_cast<std::uint32_t>(index);
    const std::uint32_t chunk = i / static_cast<std::uint32_t>(packs);
    return {static_cast<std::int32_t>(chunk),
            static_cast<int>(i - chunk * static_cast<std::uint32_t>(packs)) * kPack};
  }
  return {static_cast<std::int32_t>(index / packs), static_cast<int>(index % packs) * kPack};
}

// Four of an array that starts at a multiple of 16 bytes, as does every chunk of it.
__device__ inline void load_four(const std::int32_t* p, std::int32_t* out) {
  const int4 four = *reinterpret_cast<const int4*>(p);
  out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
}

template <class T, int kPack, bool kOne>
__global__ void __launch_bounds__(kSumThreads, kOne ? 4 : 3)
    chunks_kernel(const __grid_constant__ Parts<T> parts, Sorted sorted, int width, float* values,
                  Pieces pieces) {
  const Item item = item_of<kPack>(width);
  const std::int64_t first = static_cast<std::int64_t>(item.chunk) * kChunk;
  if (first >= sorted.size) return;
  const auto begin = static_cast<std::int32_t>(first);
  const std::int32_t end = sorted.size - begin < kChunk ? sorted.size : begin + kChunk;
  std::int32_t open = sorted.segments[begin];  // the segment that is being added up
  // Where its sum goes if it ends within the chunk.
  float* const own = values + item.column;
  float* const left = pieces.left + static_cast<std::int64_t>(item.chunk) * width + item.column;
  const bool came_in = begin > 0 && sorted.segments[begin - 1] == open;
  float* out = came_in ? left : own + static_cast<std::int64_t>(open - 1) * width;

  PackSum<kPack> sum;
  sum.clear();
  for (std::int32_t p = begin; p < end; p += kBatch) {
    std::int32_t position[kBatch];
    std::int32_t segment[kBatch];
    if (p + kBatch <= end) {
#pragma unroll
      for (int k = 0; k < kBatch; k += 4) {
        load_four(sorted.positions + p + k, position + k);
        load_four(sorted.segments + p + k, segment + k);
      }
    } else {
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        position[k] = p + k < end ? sorted.positions[p + k] : -1;
        segment[k] = sorted.segments[min(p + k, end - 1)];  // nothing opens beyond the end
      }
    }
    Pack<T, kPack> value[kBatch] = {};  // zeros beyond the end
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      if (position[k] >= 0) {
        value[k] = Pack<T, kPack>::load(parts.template row<kOne>(position[k], width) + item.column);
      }
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const bool opens = segment[k] != open;
      if (opens) sum.store(out);
      open = segment[k];
      out = opens ? own + static_cast<std::int64_t>(open - 1) * width : out;
      sum.add(value[k], opens);
    }
  }
  const bool goes_on = end < sorted.size && sorted.segments[end] == open;
  if (goes_on) {
    const bool whole = sorted.segments[begin] == open;
    out = whole ? left : pieces.right + (left - pieces.left);
  }
  sum.store(out);
}

// sums[c] = Σ of the left pieces of chunks 32·c to 32·c + 31, where all their positions belong to
// one segment.
template <int kPack>
__global__ void __launch_bounds__(kSumThreads)
    groups_kernel(Sorted sorted, int width, const float* left, float* sums) {
  const Item item = item_of<kPack>(width);
  constexpr int kPositions = kChunk * kChunk;
  const std::int64_t begin = static_cast<std::int64_t>(item.chunk) * kPositions;
  if (begin + kPositions > sorted.size) return;
  if (sorted.segments[begin] != sorted.segments[begin + kPositions - 1]) return;
  const float* piece = left + static_cast<std::int64_t>(item.chunk) * kChunk * width + item.column;
  PackSum<kPack> sum;
  sum.add(Pack<float, kPack>::load(piece), true);
#pragma unroll 8
  for (int c = 1; c < kChunk; ++c) {
    sum.add(Pack<float, kPack>::load(piece + static_cast<std::int64_t>(c) * width));
  }
  sum.store(sums + static_cast<std::int64_t>(item.chunk) * width + item.column);
}

// The sum of every segment that opened in the chunk and reaches into the next.
template <int kPack>
__global__ void __launch_bounds__(kSumThreads)
    pieces_kernel(Sorted sorted, const std::int32_t* offsets, const std::int64_t* count, int width,
                  Pieces pieces, const float* group_sums, float* values) {
  const Item item = item_of<kPack>(width);
  const std::int64_t begin = static_cast<std::int64_t>(item.chunk) * kChunk;
  if (begin + kChunk >= sorted.size) return;
  const std::int32_t segment = sorted.segments[begin + kChunk - 1];
  if (sorted.segments[begin + kChunk] != segment) return;
  if (begin > 0 && sorted.segments[begin - 1] == segment) return;
  const bool whole = sorted.segments[begin] == segment;
  const std::int64_t end = segment < *count ? offsets[segment] : sorted.size;

  const auto at = [&](const float* base, std::int64_t i) {
    return Pack<float, kPack>::load(base + i * width + item.column);
  };
  PackSum<kPack> sum;
  sum.add(at(whole ? pieces.left : pieces.right, item.chunk), true);
  const std::int64_t last = (end + kChunk - 1) / kChunk;  // one past the last chunk
  const std::int64_t first = static_cast<std::int64_t>(item.chunk) + 1;
  // Chunks up to `grouped` one by one, groups up to group `groups`, and the rest one by one.
  std::int64_t group = (first + kChunk - 1) / kChunk;
  const std::int64_t groups = end / (kChunk * kChunk);
  const std::int64_t grouped = group < groups ? group * kChunk : last;
#pragma unroll 8
  for (std::int64_t c = first; c < grouped; ++c) sum.add(at(pieces.left, c));
  if (grouped < last) {
#pragma unroll 8
    for (; group < groups; ++group) sum.add(at(group_sums, group));
#pragma unroll 8
    for (std::int64_t c = groups * kChunk; c < last; ++c) sum.add(at(pieces.left, c));
  }
  sum.store(values + static_cast<std::int64_t>(segment - 1) * width + item.column);
}

}  // namespace fulcrum::ops::cuda
