#pragma once
// What the plain attention kernels share: tiles of heads in shared memory, f32, and their products.
//
// A block of 16 × 16 threads holds a fixed tile (of queries, or of keys in the gradient of keys)
// and passes over tiles of the other side. Thread (y, x) owns kRows rows of the fixed tile from
// y · kRows on: of a tile of scores the columns from x · kColumns on, of a result the columns
// x · 4 + 64 j. The 16 threads of a row are half a warp, so rows need no barrier of the block.

#include "framework/core/cuda_kernel.cuh"

namespace fulcrum::ops::cuda {

inline constexpr int kAttentionThreads = 256;
inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

struct AttentionShape {
  std::int64_t batch, heads, kv_heads, length;
  int dim, value_dim;
  float scale;

  __host__ __device__ std::int64_t group() const { return heads / kv_heads; }
  __host__ __device__ std::int64_t tiles(int rows) const { return (length + rows - 1) / rows; }
};

// Sizes for heads of at most kDim.
template <int kDim>
struct AttentionTiles {
  static constexpr int kFixed = kDim <= 128 ? 64 : 32;   // rows of the fixed tile
  static constexpr int kMoving = kDim <= 128 ? 32 : 16;  // rows of a passing tile
  static constexpr int kRows = kFixed / 16;
  static constexpr int kColumns = kMoving / 16;
  static constexpr int kValues = kDim / 16;  // of a result, in a thread's row
  // Distances between rows, in floats: of a tile itself, and of transposed ones.
  static constexpr int kStride = kDim + 4;
  static constexpr int kFixedStride = kFixed + 4;
  static constexpr int kMovingStride = kMoving + 4;
  // Floats of a tile.
  static constexpr int kFixedTurned = kDim * kFixedStride;
  static constexpr int kMovingTurned = kDim * kMovingStride;
  static constexpr int kMovingStraight = kMoving * kStride;
  static constexpr int kScores = kMoving * kFixedStride;
};

// The queries of a block: a tile of one head. The longest rows go first.
struct QueryTile {
  std::int64_t bh, b, h, kv;  // head of all, its sequence, its place there, its key head of all
  std::int64_t first;         // row
};

template <int kDim>
__device__ QueryTile query_tile(const AttentionShape& z) {
  constexpr int kFixed = AttentionTiles<kDim>::kFixed;
  const std::int64_t bh = blockIdx.x % (z.batch * z.heads);
  const std::int64_t b = bh / z.heads;
  const std::int64_t h = bh % z.heads;
  const std::int64_t kv = b * z.kv_heads + h / z.group();
  const std::int64_t tile = z.tiles(kFixed) - 1 - blockIdx.x / (z.batch * z.heads);
  return {bh, b, h, kv, tile * kFixed};
}

// Rows first.. of a head, whose rows are `stride` apart in memory, into shared memory: transposed
// (dim after dim), as they are, or both. Zeros from `length` and from `dim` on.
template <int kTileRows, int kDim, class T>
__device__ void load_tile(const T* head, std::int64_t stride, std::int64_t first,
                          std::int64_t length, int dim, float* turned, float* straight) {
  constexpr int kTurnedStride = kTileRows + 4;
  for (int i = threadIdx.x; i < kTileRows * kDim; i += kAttentionThreads) {
    const int row = i / kDim;
    const int d = i % kDim;
    const bool inside = first + row < length && d < dim;
    const float x = inside ? to_float(head[(first + row) * stride + d]) : 0.0f;
    if (turned != nullptr) turned[d * kTurnedStride + row] = x;
    if (straight != nullptr) straight[row * (kDim + 4) + d] = x;
  }
}

template <int N>
__device__ void load_floats(const float* from, float (&to)[N]) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 x = *reinterpret_cast<const float4*>(from + i);
      to[i] = x.x;
      to[i + 1] = x.y;
      to[i + 2] = x.z;
      to[i + 3] = x.w;
    }
  } else if constexpr (N == 2) {
    const float2 x = *reinterpret_cast<const float2*>(from);
    to[0] = x.x;
    to[1] = x.y;
  } else {
    static_assert(N == 1);
    to[0] = from[0];
  }
}

// scores[i][j] = ⟨row i of the thread in the fixed tile, row j in the moving one⟩, both transposed.
template <int kDim>
__device__ void tile_scores(
    const float* fixed, const float* moving, int dim,
    float (&scores)[AttentionTiles<kDim>::kRows][AttentionTiles<kDim>::kColumns]) {
  using Tiles = AttentionTiles<kDim>;
  const int y = threadIdx.x / 16;
  const int x = threadIdx.x % 16;
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) {
#pragma unroll
    for (int j = 0; j < Tiles::kColumns; ++j) scores[i][j] = 0.0f;
  }
#pragma unroll 8
  for (int d = 0; d < dim; ++d) {
    float a[Tiles::kRows];
    float b[Tiles::kColumns];
    load_floats(fixed + d * Tiles::kFixedStride + y * Tiles::kRows, a);
    load_floats(moving + d * Tiles::kMovingStride + x * Tiles::kColumns, b);
#pragma unroll
    for (int i = 0; i < Tiles::kRows; ++i) {
#pragma unroll
      for (int j = 0; j < Tiles::kColumns; ++j) scores[i][j] += a[i] * b[j];
    }
  }
}

// Leaves the thread's scores where add_product of its rows reads them.
template <int kDim>
__device__ void store_scores(
    float* shared,
    const float (&scores)[AttentionTiles<kDim>::kRows][AttentionTiles<kDim>::kColumns]) {
  using Tiles = AttentionTiles<kDim>;
  const int y = threadIdx.x / 16;
  const int x = threadIdx.x % 16;
  __syncwarp();  // the last reader of these rows has passed
#pragma unroll
  for (int j = 0; j < Tiles::kColumns; ++j) {
#pragma unroll
    for (int i = 0; i < Tiles::kRows; ++i) {
      shared[(x * Tiles::kColumns + j) * Tiles::kFixedStride + y * Tiles::kRows + i] = scores[i][j];
    }
  }
  __syncwarp();
}

// result += scores · moving tile (as it is), scores as store_scores left them.
template <int kDim>
__device__ void add_product(
    const float* scores, const float* moving,
    float (&result)[AttentionTiles<kDim>::kRows][AttentionTiles<kDim>::kValues]) {
  using Tiles = AttentionTiles<kDim>;
  const int y = threadIdx.x / 16;
  const int x = threadIdx.x % 16;
#pragma unroll 4
  for (int row = 0; row < Tiles::kMoving; ++row) {
    float a[Tiles::kRows];
    load_floats(scores + row * Tiles::kFixedStride + y * Tiles::kRows, a);
#pragma unroll
    for (int block = 0; block < Tiles::kValues; block += 4) {
      float b[4];
      load_floats(moving + row * Tiles::kStride + x * 4 + block * 16, b);
#pragma unroll
      for (int i = 0; i < Tiles::kRows; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) result[i][block + k] += a[i] * b[k];
      }
    }
  }
}

// The thread's part of a result to rows first.. of a head, times a factor of each row.
template <int kDim, class T>
__device__ void store_result(
    const float (&result)[AttentionTiles<kDim>::kRows][AttentionTiles<kDim>::kValues],
    const float (&factors)[AttentionTiles<kDim>::kRows], std::int64_t first, std::int64_t length,
    int dim, T* head, std::int64_t stride) {
  using Tiles = AttentionTiles<kDim>;
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) {
    const std::int64_t row = first + (threadIdx.x / 16) * Tiles::kRows + i;
    if (row >= length) continue;
#pragma unroll
    for (int v = 0; v < Tiles::kValues; ++v) {
      const int d = (threadIdx.x % 16) * 4 + (v / 4) * 64 + v % 4;
      if (d < dim) head[row * stride + d] = from_float<T>(result[i][v] * factors[i]);
    }
  }
}

// Over the 16 threads of a row.
__device__ inline float row_sum(float x) {
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

__device__ inline float row_max(float x) {
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  }
  return x;
}

// Calls fn<kDim>() with the smallest kDim that holds heads of this size.
template <class Fn>
void with_head_size(std::int64_t dim, std::int64_t value_dim, Fn&& fn) {
  const std::int64_t most = std::max(dim, value_dim);
  FULCRUM_REQUIRE(most <= 256, "causal_attention: heads of at most 256 on CUDA; got {}", most);
  if (most <= 64) {
    fn.template operator()<64>();
  } else if (most <= 128) {
    fn.template operator()<128>();
  } else {
    fn.template operator()<256>();
  }
}

// Runs a kernel with a block for every fixed tile of so many heads of each sequence, which holds
// `floats` of shared memory.
template <int kDim, class Kernel, class... Arguments>
void launch_tiles(Kernel* kernel, const AttentionShape& z, std::int64_t heads, int floats,
                  Arguments... arguments) {
  const int bytes = floats * static_cast<int>(sizeof(float));
  FULCRUM_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const auto blocks =
      static_cast<unsigned>(z.tiles(AttentionTiles<kDim>::kFixed) * z.batch * heads);
  kernel<<<blocks, kAttentionThreads, bytes, compute_stream()>>>(z, arguments...);
  FULCRUM_CUDA_LAUNCHED();
}

inline AttentionShape attention_shape(const Tensor& query, const Tensor& key, const Tensor& value,
                                      double scale) {
  return {query.dim(0),
          query.dim(1),
          key.dim(1),
          query.dim(2),
          static_cast<int>(query.dim(3)),
          static_cast<int>(value.dim(3)),
          static_cast<float>(scale)};
}

}  // namespace fulcrum::ops::cuda
