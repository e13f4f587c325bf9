#include "framework/ops/attention_cuda.h"
#include "framework/ops/attention_cudnn.h"
#include "framework/ops/attention_tiles.cuh"

namespace fulcrum::ops::cuda {
namespace {

// A block takes a tile of queries of one head.
template <class T, int kDim>
__global__ void __launch_bounds__(kAttentionThreads)
    forward_kernel(AttentionShape z, const T* query, const T* key, const T* value, T* output,
                   float* log_sum) {
  using Tiles = AttentionTiles<kDim>;
  extern __shared__ float shared[];
  float* queries = shared;  // transposed
  float* keys = queries + Tiles::kFixedTurned;
  float* values = keys + Tiles::kMovingTurned;  // as they are
  float* scores = values + Tiles::kMovingStraight;
  const int y = threadIdx.x / 16;
  const int x = threadIdx.x % 16;
  const auto [bh, b, h, kv, first] = query_tile<kDim>(z);
  const T* k = key + kv * z.length * z.dim;
  const T* v = value + kv * z.length * z.value_dim;
  load_tile<Tiles::kFixed, kDim>(query + bh * z.length * z.dim, z.dim, first, z.length, z.dim,
                                 queries, nullptr);

  float result[Tiles::kRows][Tiles::kValues] = {};
  float highest[Tiles::kRows];   // score so far, times log₂ e
  float sum[Tiles::kRows] = {};  // of the thread's columns
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) highest[i] = -INFINITY;
  const std::int64_t end = min(first + Tiles::kFixed, z.length);
  for (std::int64_t from = 0; from < end; from += Tiles::kMoving) {
    __syncthreads();
    load_tile<Tiles::kMoving, kDim>(k, z.dim, from, z.length, z.dim, keys, nullptr);
    load_tile<Tiles::kMoving, kDim>(v, z.value_dim, from, z.length, z.value_dim, nullptr, values);
    __syncthreads();
    float p[Tiles::kRows][Tiles::kColumns];
    tile_scores<kDim>(queries, keys, z.dim, p);
#pragma unroll
    for (int i = 0; i < Tiles::kRows; ++i) {
      const std::int64_t row = first + y * Tiles::kRows + i;
      float most = -INFINITY;
#pragma unroll
      for (int j = 0; j < Tiles::kColumns; ++j) {
        const std::int64_t column = from + x * Tiles::kColumns + j;
        p[i][j] = column <= row ? p[i][j] * (z.scale * kLog2E) : -INFINITY;
        most = fmaxf(most, p[i][j]);
      }
      // The first tile holds column 0, which no row hides: never -∞ below.
      const float now = fmaxf(highest[i], row_max(most));
      const float factor = exp2f(highest[i] - now);
      highest[i] = now;
      sum[i] *= factor;
#pragma unroll
      for (int j = 0; j < Tiles::kColumns; ++j) {
        p[i][j] = exp2f(p[i][j] - now);
        sum[i] += p[i][j];
      }
#pragma unroll
      for (int d = 0; d < Tiles::kValues; ++d) result[i][d] *= factor;
    }
    store_scores<kDim>(scores, p);
    add_product<kDim>(scores, values, result);
  }

  float inverse[Tiles::kRows];
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) {
    const float total = row_sum(sum[i]);
    inverse[i] = 1.0f / total;
    const std::int64_t row = first + y * Tiles::kRows + i;
    if (x == 0 && row < z.length) {
      log_sum[bh * z.length + row] = highest[i] * kLn2 + logf(total);
    }
  }
  store_result<kDim>(result, inverse, first, z.length, z.value_dim,
                     output + (b * z.length * z.heads + h) * z.value_dim, z.heads * z.value_dim);
}

}  // namespace

void plain_attention(const Tensor& query, const Tensor& key, const Tensor& value, double scale,
                     const Tensor& output, const Tensor& log_sum) {
  const AttentionShape z = attention_shape(query, key, value, scale);
  with_head_size(z.dim, z.value_dim, [&]<int kDim>() {
    dispatch_cuda("causal_attention", query.dtype(), [&]<class T>() {
      using Tiles = AttentionTiles<kDim>;
      constexpr int kShared =
          Tiles::kFixedTurned + Tiles::kMovingTurned + Tiles::kMovingStraight + Tiles::kScores;
      launch_tiles<kDim>(forward_kernel<T, kDim>, z, z.heads, kShared, device_data<T>(query),
                         device_data<T>(key), device_data<T>(value), device_data<T>(output),
                         device_data<float>(log_sum));
    });
  });
}

void attention(const Tensor& query, const Tensor& key, const Tensor& value, double scale,
               const Tensor& output, const Tensor& log_sum) {
  if (query.numel() == 0) return;
  const auto in = AttentionHeads::separate(query, key, value);
  if (query.dtype() == DType::bf16 && cudnn_supports(in, scale, AttentionPass::forward)) {
    cudnn_attention(in, scale, output, log_sum);
  } else {
    plain_attention(query, key, value, scale, output, log_sum);
  }
}

void attention_backward(const Tensor& query, const Tensor& key, const Tensor& value, double scale,
                        const Tensor& output, const Tensor& log_sum, const Tensor& grad,
                        const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  if (query.numel() == 0) return;
  const auto in = AttentionHeads::separate(query, key, value);
  const AttentionPass pass = backward_pass();
  if (query.dtype() == DType::bf16 && cudnn_supports(in, scale, pass)) {
    cudnn_attention_backward(in, scale, output, log_sum, grad, pass,
                             AttentionHeads::separate(dq, dk, dv));
  } else {
    plain_attention_backward(query, key, value, scale, output, log_sum, grad, dq, dk, dv);
  }
}

}  // namespace fulcrum::ops::cuda
