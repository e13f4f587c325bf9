#include <omp.h>

#include <cmath>

#include "framework/core/tensor.h"
#include "framework/core/vector_math.h"
#include "framework/ops/attention_kernels.h"
#include "framework/ops/gemm.h"

namespace fulcrum::ops {
namespace {

// One tile of queries against one tile of keys: scores become exp(score − max) in place, and row
// maxima, sums and the accumulated output move to the new maximum. Row r sees seen + r keys.
template <class T>
void softmax_tile(std::int64_t rows, std::int64_t seen, T* scores, T* top, T* sum,
                  std::int64_t width, T* output) {
  for (std::int64_t r = 0; r < rows; ++r) {
    T* s = scores + r * kTile;
    if (seen + r < kTile) hide(s, seen + r, kTile);
    T highest = top[r];
#pragma omp simd reduction(max : highest)
    for (std::int64_t c = 0; c < kTile; ++c) highest = s[c] > highest ? s[c] : highest;
    T total = 0;
#pragma omp simd reduction(+ : total)
    for (std::int64_t c = 0; c < kTile; ++c) {
      s[c] = fast_exp(s[c] - highest);
      total += s[c];
    }
    if (highest != top[r]) {
      const T correction = fast_exp(top[r] - highest);
      sum[r] *= correction;
      T* o = output + r * width;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c) o[c] *= correction;
      top[r] = highest;
    }
    sum[r] += total;
  }
}

// Scratch of one thread: the transposed keys of one head and the state of one tile of queries.
template <class T>
class ForwardHead {
 public:
  explicit ForwardHead(const AttentionSizes& z)
      : z_(z),
        storage_(
            Tensor::zeros({kTile * (z.tiles() * z.dim + kTile + z.value_dim + 2)}, dtype_of<T>)),
        keys_(storage_.data<T>()),
        scores_(keys_ + kTile * z.tiles() * z.dim),
        accumulated_(scores_ + kTile * kTile),
        top_(accumulated_ + kTile * z.value_dim),
        sum_(top_ + kTile) {}

  void load_keys(const T* key) {
    for (std::int64_t j = 0; j < z_.tiles(); ++j) {
      transpose_tile(key + j * kTile * z_.dim, z_.dim, z_.rows(j), z_.dim,
                     keys_ + j * kTile * z_.dim);
    }
  }

  // Tile i of the queries; rows of the output are stride apart.
  void attend(std::int64_t i, const T* query, const T* value, T scale, T* output,
              std::int64_t stride, T* log_sum) {
    const std::int64_t rows = z_.rows(i);
    const std::int64_t width = z_.value_dim;
    std::fill_n(top_, rows, -std::numeric_limits<T>::infinity());
    std::fill_n(sum_, rows, T{0});
    std::fill_n(accumulated_, rows * width, T{0});
    for (std::int64_t j = 0; j < i; ++j) step(i, 0, rows, j, kTile, query, value, scale);
    // The diagonal in halves: the upper half of the queries sees no key of the lower half.
    const std::int64_t half = std::min(rows, kTile / 2);
    step(i, 0, half, i, half, query, value, scale);
    if (rows > half) step(i, half, rows - half, i, rows, query, value, scale);
    for (std::int64_t r = 0; r < rows; ++r) {
      log_sum[i * kTile + r] = top_[r] + std::log(sum_[r]);
      const T factor = T{1} / sum_[r];
      const T* from = accumulated_ + r * width;
      T* to = output + (i * kTile + r) * stride;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c) to[c] = factor * from[c];
    }
  }

 private:
  // Rows first .. first + rows of query tile i against the first keys of tile j.
  void step(std::int64_t i, std::int64_t first, std::int64_t rows, std::int64_t j,
            std::int64_t keys, const T* query, const T* value, T scale) {
    const std::int64_t width = z_.value_dim;
    T* scores = scores_ + first * kTile;
    T* accumulated = accumulated_ + first * width;
    exact_gemm<T>(false, false, rows, keys, z_.dim, scale, query + (i * kTile + first) * z_.dim,
                  z_.dim, keys_ + j * kTile * z_.dim, kTile, T{0}, scores, kTile);
    softmax_tile(rows, i == j ? first + 1 : kTile, scores, top_ + first, sum_ + first, width,
                 accumulated);
    exact_gemm<T>(false, false, rows, width, keys, T{1}, scores, kTile, value + j * kTile * width,
                  width, T{1}, accumulated, width);
  }

  const AttentionSizes& z_;
  Tensor storage_;
  T *keys_, *scores_, *accumulated_, *top_, *sum_;
};

}  // namespace

template <class T>
void attention_forward(const AttentionSizes& z, const AttentionInputs<T>& in, T scale, T* output,
                       T* log_sum) {
  const std::int64_t kv_heads = z.batch * z.kv_heads;
  if (kv_heads * z.tiles() == 0) return;
  // A thread works through all queries of one key head, whose keys and values stay in its cache.
  // Where there are too few key heads for the threads, several share one: part p takes every
  // parts-th tile of queries.
  const std::int64_t wanted = 4 * omp_get_max_threads();
  const std::int64_t parts =
      std::clamp((wanted + kv_heads - 1) / kv_heads, std::int64_t{1}, z.tiles());
#pragma omp parallel if (z.parallel())
  {
    ForwardHead<T> head(z);
#pragma omp for schedule(dynamic)
    for (std::int64_t item = 0; item < kv_heads * parts; ++item) {
      const std::int64_t kv = item / parts;  // b · KV + its head
      head.load_keys(in.key + kv * z.length * z.dim);
      for (std::int64_t member = 0; member < z.group(); ++member) {
        const std::int64_t q = kv * z.group() + member;  // b · H + h
        const std::int64_t stride = z.heads * z.value_dim;
        T* out = output + q / z.heads * z.length * stride + q % z.heads * z.value_dim;
        for (std::int64_t i = item % parts; i < z.tiles(); i += parts) {
          head.attend(i, in.query + q * z.length * z.dim, in.value + kv * z.length * z.value_dim,
                      scale, out, stride, log_sum + q * z.length);
        }
      }
    }
  }
}

template void attention_forward<float>(const AttentionSizes&, const AttentionInputs<float>&, float,
                                       float*, float*);
template void attention_forward<double>(const AttentionSizes&, const AttentionInputs<double>&,
                                        double, double*, double*);

}  // namespace fulcrum::ops
