#include "framework/ops/attention_cuda.h"
#include "framework/ops/attention_tiles.cuh"

namespace fulcrum::ops::cuda {
namespace {

// delta [B, H, S] = ⟨output, grad⟩ of each position and head; a warp takes a row.
template <class T>
__global__ void __launch_bounds__(kAttentionThreads)
    delta_kernel(AttentionShape z, const T* output, const T* grad, float* delta) {
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * (kAttentionThreads / 32) + threadIdx.x / 32;
  if (row >= z.batch * z.length * z.heads) return;
  float sum = 0.0f;
  for (int i = threadIdx.x % 32; i < z.value_dim; i += 32) {
    sum += to_float(output[row * z.value_dim + i]) * to_float(grad[row * z.value_dim + i]);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 != 0) return;
  const std::int64_t h = row % z.heads;
  const std::int64_t token = row / z.heads;
  delta[((token / z.length) * z.heads + h) * z.length + token % z.length] = sum;
}

// What both kernels read.
template <class T>
struct Tensors {
  const T *query, *key, *value, *grad;
  const float *log_sum, *delta;
};

// A block takes a tile of queries of one head and passes over the keys.
template <class T, int kDim>
__global__ void __launch_bounds__(kAttentionThreads)
    query_kernel(AttentionShape z, Tensors<T> in, T* dq) {
  using Tiles = AttentionTiles<kDim>;
  extern __shared__ float shared[];
  float* queries = shared;  // transposed, as are grads, keys and values
  float* grads = queries + Tiles::kFixedTurned;
  float* keys = grads + Tiles::kFixedTurned;
  float* values = keys + Tiles::kMovingTurned;
  float* straight_keys = values + Tiles::kMovingTurned;
  float* scores = straight_keys + Tiles::kMovingStraight;
  const int y = threadIdx.x / 16;
  const int x = threadIdx.x % 16;
  const auto [bh, b, h, kv, first] = query_tile<kDim>(z);
  load_tile<Tiles::kFixed, kDim>(in.query + bh * z.length * z.dim, z.dim, first, z.length, z.dim,
                                 queries, nullptr);
  load_tile<Tiles::kFixed, kDim>(in.grad + (b * z.length * z.heads + h) * z.value_dim,
                                 z.heads * z.value_dim, first, z.length, z.value_dim, grads,
                                 nullptr);
  float log_sum[Tiles::kRows];
  float delta[Tiles::kRows];
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) {
    const std::int64_t row = first + y * Tiles::kRows + i;
    log_sum[i] = row < z.length ? in.log_sum[bh * z.length + row] * kLog2E : 0.0f;
    delta[i] = row < z.length ? in.delta[bh * z.length + row] : 0.0f;
  }

  float result[Tiles::kRows][Tiles::kValues] = {};
  const std::int64_t end = min(first + Tiles::kFixed, z.length);
  for (std::int64_t from = 0; from < end; from += Tiles::kMoving) {
    __syncthreads();
    load_tile<Tiles::kMoving, kDim>(in.key + kv * z.length * z.dim, z.dim, from, z.length, z.dim,
                                    keys, straight_keys);
    load_tile<Tiles::kMoving, kDim>(in.value + kv * z.length * z.value_dim, z.value_dim, from,
                                    z.length, z.value_dim, values, nullptr);
    __syncthreads();
    float p[Tiles::kRows][Tiles::kColumns];
    float dp[Tiles::kRows][Tiles::kColumns];
    tile_scores<kDim>(queries, keys, z.dim, p);
    tile_scores<kDim>(grads, values, z.value_dim, dp);
#pragma unroll
    for (int i = 0; i < Tiles::kRows; ++i) {
      const std::int64_t row = first + y * Tiles::kRows + i;
#pragma unroll
      for (int j = 0; j < Tiles::kColumns; ++j) {
        const bool seen = from + x * Tiles::kColumns + j <= row && row < z.length;
        const float probability = seen ? exp2f(p[i][j] * (z.scale * kLog2E) - log_sum[i]) : 0.0f;
        p[i][j] = probability * (dp[i][j] - delta[i]);
      }
    }
    store_scores<kDim>(scores, p);
    add_product<kDim>(scores, straight_keys, result);
  }
  float factors[Tiles::kRows];
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) factors[i] = z.scale;
  store_result<kDim>(result, factors, first, z.length, z.dim, dq + bh * z.length * z.dim, z.dim);
}

// A block takes a tile of keys of one key head and passes over the queries of its group, head after
// head. The first tile is read by the most queries.
template <class T, int kDim>
__global__ void __launch_bounds__(kAttentionThreads)
    key_kernel(AttentionShape z, Tensors<T> in, T* dk, T* dv) {
  using Tiles = AttentionTiles<kDim>;
  extern __shared__ float shared[];
  float* keys = shared;  // transposed, as are values, queries and grads
  float* values = keys + Tiles::kFixedTurned;
  float* queries = values + Tiles::kFixedTurned;
  float* grads = queries + Tiles::kMovingTurned;
  float* straight_queries = grads + Tiles::kMovingTurned;
  float* straight_grads = straight_queries + Tiles::kMovingStraight;
  float* scores = straight_grads + Tiles::kMovingStraight;
  const int y = threadIdx.x / 16;
  const int x = threadIdx.x % 16;
  const std::int64_t kv = blockIdx.x % (z.batch * z.kv_heads);
  const std::int64_t b = kv / z.kv_heads;
  const std::int64_t first = blockIdx.x / (z.batch * z.kv_heads) * Tiles::kFixed;
  load_tile<Tiles::kFixed, kDim>(in.key + kv * z.length * z.dim, z.dim, first, z.length, z.dim,
                                 keys, nullptr);
  load_tile<Tiles::kFixed, kDim>(in.value + kv * z.length * z.value_dim, z.value_dim, first,
                                 z.length, z.value_dim, values, nullptr);

  float key_result[Tiles::kRows][Tiles::kValues] = {};
  float value_result[Tiles::kRows][Tiles::kValues] = {};
  for (std::int64_t g = 0; g < z.group(); ++g) {
    const std::int64_t h = kv % z.kv_heads * z.group() + g;
    const std::int64_t bh = b * z.heads + h;
    for (std::int64_t from = first; from < z.length; from += Tiles::kMoving) {
      __syncthreads();
      load_tile<Tiles::kMoving, kDim>(in.query + bh * z.length * z.dim, z.dim, from, z.length,
                                      z.dim, queries, straight_queries);
      load_tile<Tiles::kMoving, kDim>(in.grad + (b * z.length * z.heads + h) * z.value_dim,
                                      z.heads * z.value_dim, from, z.length, z.value_dim, grads,
                                      straight_grads);
      __syncthreads();
      float p[Tiles::kRows][Tiles::kColumns];
      float dp[Tiles::kRows][Tiles::kColumns];
      tile_scores<kDim>(keys, queries, z.dim, p);
      tile_scores<kDim>(values, grads, z.value_dim, dp);
#pragma unroll
      for (int j = 0; j < Tiles::kColumns; ++j) {
        const std::int64_t row = from + x * Tiles::kColumns + j;
        const bool inside = row < z.length;
        const float log_sum = inside ? in.log_sum[bh * z.length + row] * kLog2E : 0.0f;
        const float delta = inside ? in.delta[bh * z.length + row] : 0.0f;
#pragma unroll
        for (int i = 0; i < Tiles::kRows; ++i) {
          const bool seen = inside && first + y * Tiles::kRows + i <= row;
          p[i][j] = seen ? exp2f(p[i][j] * (z.scale * kLog2E) - log_sum) : 0.0f;
          dp[i][j] = p[i][j] * (dp[i][j] - delta);
        }
      }
      store_scores<kDim>(scores, p);
      add_product<kDim>(scores, straight_grads, value_result);
      store_scores<kDim>(scores, dp);
      add_product<kDim>(scores, straight_queries, key_result);
    }
  }
  float factors[Tiles::kRows];
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) factors[i] = z.scale;
  store_result<kDim>(key_result, factors, first, z.length, z.dim, dk + kv * z.length * z.dim,
                     z.dim);
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) factors[i] = 1.0f;
  store_result<kDim>(value_result, factors, first, z.length, z.value_dim,
                     dv + kv * z.length * z.value_dim, z.value_dim);
}

}  // namespace

void plain_attention_backward(const Tensor& query, const Tensor& key, const Tensor& value,
                              double scale, const Tensor& output, const Tensor& log_sum,
                              const Tensor& grad, const Tensor& dq, const Tensor& dk,
                              const Tensor& dv) {
  const AttentionShape z = attention_shape(query, key, value, scale);
  const Tensor delta = Tensor::empty_like(log_sum);
  with_head_size(z.dim, z.value_dim, [&]<int kDim>() {
    dispatch_cuda("causal_attention", query.dtype(), [&]<class T>() {
      using Tiles = AttentionTiles<kDim>;
      const std::int64_t rows = z.batch * z.length * z.heads;
      delta_kernel<<<static_cast<unsigned>(ceil_div(rows, kAttentionThreads / 32)),
                     kAttentionThreads, 0, compute_stream()>>>(
          z, device_data<T>(output), device_data<T>(grad), device_data<float>(delta));
      FULCRUM_CUDA_LAUNCHED();
      const Tensors<T> in{device_data<T>(query),       device_data<T>(key),
                          device_data<T>(value),       device_data<T>(grad),
                          device_data<float>(log_sum), device_data<float>(delta)};
      constexpr int kQueryShared = 2 * Tiles::kFixedTurned + 2 * Tiles::kMovingTurned +
                                   Tiles::kMovingStraight + Tiles::kScores;
      launch_tiles<kDim>(query_kernel<T, kDim>, z, z.heads, kQueryShared, in, device_data<T>(dq));
      constexpr int kKeyShared = kQueryShared + Tiles::kMovingStraight;
      launch_tiles<kDim>(key_kernel<T, kDim>, z, z.kv_heads, kKeyShared, in, device_data<T>(dk),
                         device_data<T>(dv));
    });
  });
}

}  // namespace fulcrum::ops::cuda
