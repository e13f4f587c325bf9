#pragma once
// Sums of the gradient's rows of equal tokens, which stand in segments in the order of their ids.
//
// A block sums the tokens of a few rows of the result, unless a row has more than kTile of them:
// those are summed by tiles of kTile ordered tokens, a partial sum each, which are then added in
// order.

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/pack_sum.cuh"

namespace fulcrum::ops::cuda {

constexpr int kTokenThreads = 256;  // of a block, at most
constexpr int kTile = 32;           // tokens
constexpr int kAhead = 8;           // rows of the gradient that a thread has in flight
constexpr int kRows = 16;           // rows of the result that a block takes

struct OrderedTokens {
  const std::int32_t* positions;  // [n], by id, ascending within an id
  const std::int32_t* numbers;    // [n], of segments, from 1
  const std::int32_t* offsets;    // [count], of segments
  const std::int64_t* count;
  const std::int32_t* first;  // [vocabulary + 1], where each id begins
  int n;
};

template <class T>
struct Gradient {
  const T* g;
  int width;
  float* partial;  // [tiles, 2, width]

  // Of each tile the sum of the run that goes on from the tile before, and of the run that begins
  // there and goes on in the next.
  __device__ float* part(std::int64_t tile, int which) const {
    return partial + (2 * tile + which) * width;
  }
};

// First element of this thread's pack of columns.
template <int kN>
__device__ inline int own_column() {
  return static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kN;
}

// The parts that a tile has of long runs.
template <class T, int kN>
__global__ void __launch_bounds__(kTokenThreads)
    parts_kernel(Gradient<T> gradient, OrderedTokens tokens) {
  const int begin = static_cast<int>(blockIdx.x) * kTile;
  const int end = min(begin + kTile, tokens.n);
  const int column = own_column<kN>();
  if (column >= gradient.width) return;
  const std::int32_t left = tokens.numbers[begin];
  const std::int32_t right = tokens.numbers[end - 1];
  const bool continued = begin > 0 && tokens.numbers[begin - 1] == left;
  const bool goes_on = end < tokens.n && tokens.numbers[end] == right;
  const auto begin_of = [&](std::int32_t number) { return tokens.offsets[number - 1]; };
  const auto end_of = [&](std::int32_t number) {
    return number < *tokens.count ? tokens.offsets[number] : tokens.n;
  };
  const auto sum_up = [&](int from, int to, int which) {
    PackSum<kN> sum;
    sum.clear();
    for (int base = from; base < to; base += kAhead) {
      Pack<T, kN> rows[kAhead];
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (base + k >= to) continue;
        const std::int64_t row = tokens.positions[base + k];
        rows[k] = Pack<T, kN>::load(gradient.g + row * gradient.width + column);
      }
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (base + k < to) sum.add(rows[k]);
      }
    }
    sum.store(gradient.part(blockIdx.x, which) + column);
  };
  if (continued && end_of(left) - begin_of(left) > kTile) sum_up(begin, min(end, end_of(left)), 0);
  const bool begins_here = left != right || !continued;
  if (goes_on && begins_here && end_of(right) - begin_of(right) > kTile) {
    sum_up(max(begin, begin_of(right)), end, 1);
  }
}

// Rows of the result that have tokens.
template <class T, int kN>
__global__ void __launch_bounds__(kTokenThreads, 4)
    rows_kernel(Gradient<T> gradient, OrderedTokens tokens, int vocabulary, float* out, bool add) {
  __shared__ std::int32_t begins[kRows + 1];
  __shared__ std::int32_t positions[kRows * kTile];  // of the tokens of rows that are not long
  __shared__ std::int32_t owners[kRows * kTile + 1];
  const int first_row = static_cast<int>(blockIdx.x) * kRows;
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread <= kRows) begins[thread] = tokens.first[min(first_row + thread, vocabulary)];
  __syncthreads();
  if (begins[0] == begins[kRows]) return;
  int count = 0;
  for (int i = thread;; i += static_cast<int>(blockDim.x)) {
    int source = 0;
    int owner = 0;
    count = 0;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const int length = begins[k + 1] - begins[k];
      if (length > kTile) continue;
      if (i >= count && i < count + length) {
        source = begins[k] + i - count;
        owner = k;
      }
      count += length;
    }
    if (i >= count) break;
    positions[i] = tokens.positions[source];
    owners[i] = owner;
  }
  if (thread == 0) owners[count] = -1;
  __syncthreads();
  const int column = own_column<kN>();
  if (column >= gradient.width) return;

  float* const to = out + static_cast<std::int64_t>(first_row) * gradient.width + column;
  PackSum<kN> sum;
  sum.clear();
  for (int base = 0; base < count; base += kAhead) {
    Pack<T, kN> rows[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (base + k >= count) continue;
      const std::int64_t row = positions[base + k];
      rows[k] = Pack<T, kN>::load(gradient.g + row * gradient.width + column);
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (base + k >= count) continue;
      sum.add(rows[k]);
      const std::int32_t owner = owners[base + k];
      if (owners[base + k + 1] == owner) continue;
      sum.store(to + static_cast<std::int64_t>(owner) * gradient.width, add);
      sum.clear();
    }
  }
  for (int k = 0; k < kRows; ++k) {
    if (begins[k + 1] - begins[k] <= kTile) continue;
    const std::int64_t first_tile = begins[k] / kTile;
    const std::int64_t last_tile = (begins[k + 1] - 1) / kTile;
    sum.clear();
    sum.add(Pack<float, kN>::load(gradient.part(first_tile, 1) + column));
#pragma unroll 4
    for (std::int64_t tile = first_tile + 1; tile <= last_tile; ++tile) {
      sum.add(Pack<float, kN>::load(gradient.part(tile, 0) + column));
    }
    sum.store(to + static_cast<std::int64_t>(k) * gradient.width, add);
  }
}

}  // namespace fulcrum::ops::cuda
