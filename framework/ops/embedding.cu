#include <bit>
#include <cub/device/device_radix_sort.cuh>
#include <limits>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/embedding_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;

// Consecutive threads move consecutive packs of y, which are runs of the rows that ids name.
template <class T, int kN, class Index>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const T* weight, const std::int32_t* ids, Index total, Index row_packs, T* y) {
  const Index first = static_cast<Index>(blockIdx.x) * kThreads * kUnroll + threadIdx.x;
  Pack<T, kN> v[kUnroll];
#pragma unroll
  for (int k = 0; k < kUnroll; ++k) {
    const Index i = first + k * kThreads;
    if (i >= total) continue;
    const Index t = i / row_packs;
    const std::int64_t from = static_cast<std::int64_t>(ids[t]) * row_packs + (i - t * row_packs);
    v[k] = Pack<T, kN>::load(weight + from * kN);
  }
#pragma unroll
  for (int k = 0; k < kUnroll; ++k) {
    const Index i = first + k * kThreads;
    if (i < total) v[k].store(y + static_cast<std::int64_t>(i) * kN);
  }
}

template <class T, int kN>
void gather(const T* weight, const std::int32_t* ids, std::int64_t n, std::int64_t width, T* y) {
  const std::int64_t total = n * (width / kN);
  const auto blocks = static_cast<unsigned>(ceil_div(total, kThreads * kUnroll));
  // Index arithmetic in 32 bits where it fits: the division counts.
  if (total <= std::numeric_limits<std::int32_t>::max() - kThreads * kUnroll) {
    gather_kernel<T, kN, std::uint32_t><<<blocks, kThreads, 0, compute_stream()>>>(
        weight, ids, static_cast<std::uint32_t>(total), static_cast<std::uint32_t>(width / kN), y);
  } else {
    gather_kernel<T, kN, std::int64_t>
        <<<blocks, kThreads, 0, compute_stream()>>>(weight, ids, total, width / kN, y);
  }
  FULCRUM_CUDA_LAUNCHED();
}

// Backward. Tokens are sorted by id, so that those of a row form a segment. The sorted tokens are
// cut into tiles of equal size, whatever the segments: a block sums the runs of its tile. A segment
// that lies in one tile is finished there; of a longer one every tile leaves a partial sum, and
// those are added in order.
constexpr int kTile = 32;
constexpr int kAhead = 8;  // rows that a thread has in flight
constexpr int kRows = 8;   // rows of the result that a block of finish_kernel takes

struct Order {
  const std::int32_t* ids;        // [n], ascending
  const std::int32_t* positions;  // [n], ascending within an id
  int n;
};

__global__ void count_up_kernel(std::int32_t* x, int n) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < n) x[i] = i;
}

// first[v] = number of ids below v, for v = 0 … vocabulary.
__global__ void segment_starts_kernel(const std::int32_t* ids, int n, int vocabulary,
                                      std::int32_t* first) {
  const int v = blockIdx.x * kThreads + threadIdx.x;
  if (v > vocabulary) return;
  int low = 0;
  int high = n;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (ids[middle] < v) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  first[v] = low;
}

// kN consecutive f32 by accesses of up to 16 bytes.
template <int kN>
struct Sums {
  static constexpr int kPart = kN < 4 ? kN : 4;
  Pack<float, kPart> parts[kN / kPart];

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kN; ++i) parts[i / kPart].values[i % kPart] = 0.0f;
  }
  template <class X>
  __device__ void add(const X& x) {
#pragma unroll
    for (int i = 0; i < kN; ++i) parts[i / kPart].values[i % kPart] += x[i];
  }
  __device__ float operator[](int i) const { return parts[i / kPart].values[i % kPart]; }
  __device__ static Sums load(const float* p) {
    Sums sums;
#pragma unroll
    for (int i = 0; i < kN / kPart; ++i) sums.parts[i] = Pack<float, kPart>::load(p + i * kPart);
    return sums;
  }
  __device__ void store(float* p) const {
#pragma unroll
    for (int i = 0; i < kN / kPart; ++i) parts[i].store(p + i * kPart);
  }
};

// partial [tiles, 2, width]: of each tile the sum of the run that goes on from the tile before, and
// of the run that begins here and goes on in the next.
template <class T, int kN>
__global__ void __launch_bounds__(kThreads)
    tile_kernel(const T* g, Order order, int width, float* out, bool add, float* partial) {
  __shared__ std::int32_t ids[kTile + 2];  // with the neighbours of the tile; −1: none
  __shared__ std::int32_t positions[kTile];
  const int begin = blockIdx.x * kTile;
  const int count = min(kTile, order.n - begin);
  for (int i = threadIdx.x; i < kTile + 2; i += blockDim.x) {
    const int at = begin + i - 1;
    ids[i] = at >= 0 && at < order.n ? order.ids[at] : -1;
    if (i < count) positions[i] = order.positions[begin + i];
  }
  __syncthreads();
  const int column = (blockIdx.y * blockDim.x + threadIdx.x) * kN;
  if (column >= width) return;

  Sums<kN> sum;
  sum.clear();
  bool continued = ids[0] == ids[1];  // the run began in an earlier tile
  for (int base = 0; base < count; base += kAhead) {
    Pack<T, kN> rows[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (base + k < count) {
        rows[k] =
            Pack<T, kN>::load(g + static_cast<std::int64_t>(positions[base + k]) * width + column);
      }
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int i = base + k;
      if (i >= count) continue;
      sum.add(rows[k]);
      const std::int32_t id = ids[i + 1];
      const bool goes_on = ids[i + 2] == id;
      if (goes_on && i + 1 < count) continue;
      if (continued || goes_on) {
        const std::int64_t slot = 2 * static_cast<std::int64_t>(blockIdx.x) + (continued ? 0 : 1);
        sum.store(partial + slot * width + column);
      } else {
        float* to = out + static_cast<std::int64_t>(id) * width + column;
        if (add) sum.add(Sums<kN>::load(to));
        sum.store(to);
      }
      sum.clear();
      continued = false;
    }
  }
}

// Rows without tokens, and those whose tokens lie in several tiles.
template <int kN>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(const std::int32_t* first, const float* partial, int vocabulary, int width,
                  float* out, bool add) {
  __shared__ std::int32_t begins[kRows + 1];
  const int first_row = blockIdx.x * kRows;
  if (threadIdx.x <= kRows) begins[threadIdx.x] = first[min(first_row + threadIdx.x, vocabulary)];
  __syncthreads();
  const int column = (blockIdx.y * blockDim.x + threadIdx.x) * kN;
  if (column >= width) return;
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    if (first_row + k >= vocabulary) return;
    const int begin = begins[k];
    const int end = begins[k + 1];
    float* to = out + static_cast<std::int64_t>(first_row + k) * width + column;
    Sums<kN> sum;
    if (begin == end) {
      if (add) continue;
      sum.clear();
    } else {
      const int first_tile = begin / kTile;
      const int last_tile = (end - 1) / kTile;
      if (first_tile == last_tile) continue;
      sum = Sums<kN>::load(partial + (2 * static_cast<std::int64_t>(first_tile) + 1) * width +
                           column);
#pragma unroll 4
      for (std::int64_t tile = first_tile + 1; tile <= last_tile; ++tile) {
        sum.add(Sums<kN>::load(partial + 2 * tile * width + column));
      }
      if (add) sum.add(Sums<kN>::load(to));
    }
    sum.store(to);
  }
}

// Threads and column slices of a grid for rows of so many packs.
struct Columns {
  explicit Columns(int packs)
      : threads(static_cast<unsigned>(std::min(kThreads, (packs + 31) / 32 * 32))),
        slices(static_cast<unsigned>(ceil_div(packs, threads))) {}
  unsigned threads, slices;
};

struct Sorted {
  Tensor ids, positions;
};

Sorted sort(const Tensor& ids, std::int64_t vocabulary) {
  const auto n = static_cast<int>(ids.dim(0));
  Sorted sorted{Tensor::empty_like(ids), Tensor::empty_like(ids)};
  const Tensor counted = Tensor::empty_like(ids);
  auto* positions = static_cast<std::int32_t*>(counted.raw());
  count_up_kernel<<<static_cast<unsigned>(ceil_div(n, kThreads)), kThreads, 0, compute_stream()>>>(
      positions, n);
  FULCRUM_CUDA_LAUNCHED();
  const int bits =
      std::max(1, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(vocabulary - 1))));
  const auto run = [&](void* scratch, std::size_t& bytes) {
    FULCRUM_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(
        scratch, bytes, static_cast<const std::uint32_t*>(ids.raw()),
        static_cast<std::uint32_t*>(sorted.ids.raw()), positions,
        static_cast<std::int32_t*>(sorted.positions.raw()), n, 0, bits, compute_stream()));
  };
  std::size_t bytes = 0;
  run(nullptr, bytes);
  const Tensor scratch = Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::u8, ids.device());
  run(scratch.raw(), bytes);
  return sorted;
}

template <class T, int kN>
void backward(const Tensor& g, const Tensor& ids, const Tensor& out, bool add) {
  const auto n = static_cast<int>(ids.dim(0));
  const auto vocabulary = static_cast<int>(out.dim(0));
  const auto width = static_cast<int>(out.dim(1));
  const Sorted sorted = sort(ids, vocabulary);
  const auto* sorted_ids = static_cast<const std::int32_t*>(sorted.ids.raw());
  const Order order{sorted_ids, static_cast<const std::int32_t*>(sorted.positions.raw()), n};
  const Tensor first = Tensor::empty({vocabulary + std::int64_t{1}}, DType::i32, g.device());
  auto* starts = static_cast<std::int32_t*>(first.raw());
  segment_starts_kernel<<<static_cast<unsigned>(ceil_div(vocabulary + std::int64_t{1}, kThreads)),
                          kThreads, 0, compute_stream()>>>(sorted_ids, n, vocabulary, starts);
  FULCRUM_CUDA_LAUNCHED();

  const auto tiles = static_cast<unsigned>(ceil_div(n, kTile));
  const Tensor partial = Tensor::empty({tiles, 2, width}, DType::f32, g.device());
  float* to = device_data<float>(out);
  float* parts = device_data<float>(partial);
  const Columns reading(width / kN);
  tile_kernel<T, kN><<<dim3(tiles, reading.slices), reading.threads, 0, compute_stream()>>>(
      device_data<T>(g), order, width, to, add, parts);
  FULCRUM_CUDA_LAUNCHED();
  constexpr int kOut = kN == 1 ? 1 : 4;  // all f32
  const Columns writing(width / kOut);
  const auto blocks = static_cast<unsigned>(ceil_div(vocabulary, kRows));
  finish_kernel<kOut><<<dim3(blocks, writing.slices), writing.threads, 0, compute_stream()>>>(
      starts, parts, vocabulary, width, to, add);
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace

void embedding(const Tensor& weight, const Tensor& ids, const Tensor& y) {
  if (y.numel() == 0) return;
  const std::int64_t n = ids.dim(0);
  const std::int64_t width = weight.dim(1);
  const auto* id = static_cast<const std::int32_t*>(ids.raw());
  dispatch_cuda("embedding", weight.dtype(), [&]<class T>() {
    const T* w = device_data<T>(weight);
    T* out = device_data<T>(y);
    if (is_wide<T>(w, width) && is_wide<T>(out, width)) {
      gather<T, kWide<T>>(w, id, n, width, out);
    } else {
      gather<T, 1>(w, id, n, width, out);
    }
  });
}

void embedding_backward(const Tensor& g, const Tensor& ids, const Tensor& out, bool add) {
  if (out.numel() == 0) return;
  if (ids.dim(0) == 0) {
    if (!add) out.zero();
    return;
  }
  FULCRUM_REQUIRE(ids.dim(0) <= std::numeric_limits<std::int32_t>::max() - kTile,
                  "embedding: at most 2^31 tokens at once; got {}", ids.dim(0));
  dispatch_cuda("embedding", g.dtype(), [&]<class T>() {
    const bool wide = is_wide<T>(g.raw(), out.dim(1)) && is_wide<float>(out.raw(), out.dim(1));
    wide ? backward<T, kWide<T>>(g, ids, out, add) : backward<T, 1>(g, ids, out, add);
  });
}

}  // namespace fulcrum::ops::cuda
