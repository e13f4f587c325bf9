#include "framework/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/core/vector_math.h"
#include "framework/ops/gemm.h"

namespace fulcrum::ops {
namespace {

// Products of 64 x 64 tiles run in OpenBLAS's kernels for small matrices, which pack nothing; that
// needs the right-hand matrix untransposed, so tiles that would be read transposed are turned once
// beforehand.
constexpr std::int64_t kTile = 64;

// Multiplications of a product of all queries with all keys from which threads pay.
constexpr std::int64_t kParallel = 1 << 17;

struct Sizes {
  std::int64_t batch, heads, kv_heads, length, dim, value_dim;

  std::int64_t tiles() const { return (length + kTile - 1) / kTile; }
  std::int64_t group() const { return heads / kv_heads; }
  std::int64_t multiplications() const {
    return batch * heads * length * length * std::max(dim, value_dim);
  }
  // Rows of tile i.
  std::int64_t rows(std::int64_t i) const { return std::min(kTile, length - i * kTile); }
};

// out[c, r] = in[r, c], for out with rows kTile apart.
template <class T>
void transpose_tile(const T* in, std::int64_t ld, std::int64_t rows, std::int64_t columns, T* out) {
  constexpr std::int64_t kBlock = 16;
  std::int64_t c = 0;
  if (rows == kTile) {
    for (; c + kBlock <= columns; c += kBlock) {
      for (std::int64_t r = 0; r < kTile; r += kBlock) {
        for (std::int64_t j = 0; j < kBlock; ++j) {
#pragma GCC unroll 16
          for (std::int64_t i = 0; i < kBlock; ++i) {
            out[(c + j) * kTile + r + i] = in[(r + i) * ld + c + j];
          }
        }
      }
    }
  }
  for (; c < columns; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) out[c * kTile + r] = in[r * ld + c];
  }
}

// One tile of queries against one tile of keys: scores become exp(score − max) in place, and row
// maxima, sums and the accumulated output move to the new maximum. On the diagonal row r sees r + 1
// keys.
template <class T>
void softmax_tile(std::int64_t rows, std::int64_t keys, bool diagonal, T* scores, T* top, T* sum,
                  std::int64_t width, T* output) {
  for (std::int64_t r = 0; r < rows; ++r) {
    T* s = scores + r * kTile;
    const std::int64_t seen = diagonal ? r + 1 : keys;
    T highest = top[r];
#pragma omp simd reduction(max : highest)
    for (std::int64_t c = 0; c < seen; ++c) highest = std::max(highest, s[c]);
    T total = 0;
#pragma omp simd reduction(+ : total)
    for (std::int64_t c = 0; c < seen; ++c) {
      s[c] = fast_exp(s[c] - highest);
      total += s[c];
    }
    std::fill(s + seen, s + keys, T{0});
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

template <class T>
void forward(const Sizes& z, const T* query, const T* key, const T* value, T scale, T* output,
             T* log_sum) {
  // Keys of every tile, transposed: [B · KV, tiles, D, kTile].
  const std::int64_t tile_size = z.dim * kTile;
  const Tensor turned = Tensor::empty({z.batch * z.kv_heads * z.tiles(), tile_size}, dtype_of<T>);
  T* key_tiles = turned.data<T>();
#pragma omp parallel if (z.multiplications() > kParallel)
  {
#pragma omp for schedule(static)
    for (std::int64_t n = 0; n < z.batch * z.kv_heads * z.tiles(); ++n) {
      const std::int64_t tile = n % z.tiles();
      transpose_tile(key + (n / z.tiles() * z.length + tile * kTile) * z.dim, z.dim, z.rows(tile),
                     z.dim, key_tiles + n * tile_size);
    }

    const Tensor scratch = Tensor::empty({kTile * (kTile + z.value_dim + 2)}, dtype_of<T>);
    T* scores = scratch.data<T>();
    T* accumulated = scores + kTile * kTile;
    T* top = accumulated + kTile * z.value_dim;
    T* sum = top + kTile;
    // The longest rows first, which evens out the threads' work.
    const std::int64_t heads = z.batch * z.heads;
#pragma omp for schedule(dynamic)
    for (std::int64_t item = 0; item < heads * z.tiles(); ++item) {
      const std::int64_t i = z.tiles() - 1 - item / heads;
      const std::int64_t head = item % heads;  // b · H + h
      const std::int64_t kv = head / z.group();
      const std::int64_t rows = z.rows(i);
      const T* q = query + (head * z.length + i * kTile) * z.dim;
      std::fill_n(top, rows, -std::numeric_limits<T>::infinity());
      std::fill_n(sum, rows, T{0});
      std::fill_n(accumulated, rows * z.value_dim, T{0});
      for (std::int64_t j = 0; j <= i; ++j) {
        const std::int64_t keys = z.rows(j);
        exact_gemm<T>(false, false, rows, keys, z.dim, scale, q, z.dim,
                      key_tiles + (kv * z.tiles() + j) * tile_size, kTile, T{0}, scores, kTile);
        softmax_tile(rows, keys, i == j, scores, top, sum, z.value_dim, accumulated);
        exact_gemm<T>(false, false, rows, z.value_dim, keys, T{1}, scores, kTile,
                      value + (kv * z.length + j * kTile) * z.value_dim, z.value_dim, T{1},
                      accumulated, z.value_dim);
      }
      const std::int64_t b = head / z.heads;
      const std::int64_t h = head % z.heads;
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t t = i * kTile + r;
        log_sum[head * z.length + t] = top[r] + std::log(sum[r]);
        const T factor = T{1} / sum[r];
        const T* in = accumulated + r * z.value_dim;
        T* out = output + ((b * z.length + t) * z.heads + h) * z.value_dim;
#pragma omp simd
        for (std::int64_t c = 0; c < z.value_dim; ++c) out[c] = factor * in[c];
      }
    }
  }
}

// Where a gradient goes; null when it is not wanted.
template <class T>
struct Target {
  T* data = nullptr;
  bool add = false;
};

// One query head prepared for backward: per tile the transposed queries, the output gradient
// straight and transposed, and for each row ⟨do, o⟩.
template <class T>
class QueryHead {
 public:
  explicit QueryHead(const Sizes& z)
      : z_(z),
        storage_(Tensor::empty({z.tiles() * kTile * (z.dim + 2 * z.value_dim + 1)}, dtype_of<T>)) {}

  void load(const T* query, const T* output, const T* grad, std::int64_t b, std::int64_t h) {
    const std::int64_t stride = z_.heads * z_.value_dim;
    for (std::int64_t i = 0; i < z_.tiles(); ++i) {
      const std::int64_t rows = z_.rows(i);
      const std::int64_t first = i * kTile;
      transpose_tile(query + first * z_.dim, z_.dim, rows, z_.dim, query_turned(i));
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t at = (b * z_.length + first + r) * stride + h * z_.value_dim;
        T* copy = output_grad(i) + r * z_.value_dim;
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (std::int64_t c = 0; c < z_.value_dim; ++c) {
          copy[c] = grad[at + c];
          dot += grad[at + c] * output[at + c];
        }
        delta(i)[r] = dot;
      }
      transpose_tile(output_grad(i), z_.value_dim, rows, z_.value_dim, output_grad_turned(i));
    }
  }

  T* query_turned(std::int64_t i) const { return part(0, i, z_.dim); }
  T* output_grad(std::int64_t i) const { return part(z_.dim, i, z_.value_dim); }
  T* output_grad_turned(std::int64_t i) const {
    return part(z_.dim + z_.value_dim, i, z_.value_dim);
  }
  T* delta(std::int64_t i) const { return part(z_.dim + 2 * z_.value_dim, i, 1); }

 private:
  // Tile i of the part that starts after `before` columns.
  T* part(std::int64_t before, std::int64_t i, std::int64_t width) const {
    return storage_.data<T>() + kTile * (before * z_.tiles() + i * width);
  }

  const Sizes& z_;
  Tensor storage_;
};

// Transposed tiles [keys, queries]: scores become probabilities p, and their gradients p · (dp −
// delta). On the diagonal key r is seen by the queries from r on.
template <class T>
void probability_tile(std::int64_t keys, std::int64_t queries, bool diagonal, const T* log_sum,
                      const T* delta, T* scores, T* grads) {
  for (std::int64_t r = 0; r < keys; ++r) {
    T* p = scores + r * kTile;
    T* g = grads + r * kTile;
    const std::int64_t first = diagonal ? r : 0;
    std::fill_n(p, first, T{0});
    std::fill_n(g, first, T{0});
#pragma omp simd
    for (std::int64_t c = first; c < queries; ++c) {
      p[c] = fast_exp(p[c] - log_sum[c]);
      g[c] = p[c] * (g[c] - delta[c]);
    }
  }
}

template <class T>
struct BackwardInputs {
  const T *query, *key, *value, *output, *log_sum, *grad;
};

template <class T>
void backward(const Sizes& z, const BackwardInputs<T>& in, T scale, const Target<T>& dq,
              const Target<T>& dk, const Target<T>& dv) {
#pragma omp parallel if (z.multiplications() > kParallel)
  {
    QueryHead<T> head(z);
    const Tensor scratch = Tensor::empty({2, kTile * kTile}, dtype_of<T>);
    T* p = scratch.data<T>();
    T* ds = p + kTile * kTile;
#pragma omp for schedule(dynamic)
    for (std::int64_t kv = 0; kv < z.batch * z.kv_heads; ++kv) {  // b · KV + its head
      for (std::int64_t member = 0; member < z.group(); ++member) {
        const std::int64_t query_head = kv * z.group() + member;  // b · H + h
        const std::int64_t first = query_head * z.length;
        head.load(in.query + first * z.dim, in.output, in.grad, query_head / z.heads,
                  query_head % z.heads);
        for (std::int64_t j = 0; j < z.tiles(); ++j) {
          const std::int64_t keys = z.rows(j);
          const std::int64_t key_row = kv * z.length + j * kTile;
          const T* k = in.key + key_row * z.dim;
          const T* v = in.value + key_row * z.value_dim;
          for (std::int64_t i = j; i < z.tiles(); ++i) {
            const std::int64_t queries = z.rows(i);
            const std::int64_t query_row = first + i * kTile;
            exact_gemm<T>(false, false, keys, queries, z.dim, scale, k, z.dim, head.query_turned(i),
                          kTile, T{0}, p, kTile);
            exact_gemm<T>(false, false, keys, queries, z.value_dim, T{1}, v, z.value_dim,
                          head.output_grad_turned(i), kTile, T{0}, ds, kTile);
            probability_tile(keys, queries, i == j, in.log_sum + query_row, head.delta(i), p, ds);
            const bool first_of_keys = member == 0 && i == j;
            if (dv.data != nullptr) {
              exact_gemm<T>(false, false, keys, z.value_dim, queries, T{1}, p, kTile,
                            head.output_grad(i), z.value_dim, T(dv.add || !first_of_keys),
                            dv.data + key_row * z.value_dim, z.value_dim);
            }
            if (dk.data != nullptr) {
              exact_gemm<T>(false, false, keys, z.dim, queries, scale, ds, kTile,
                            in.query + query_row * z.dim, z.dim, T(dk.add || !first_of_keys),
                            dk.data + key_row * z.dim, z.dim);
            }
            if (dq.data != nullptr) {
              exact_gemm<T>(true, false, queries, z.dim, keys, scale, ds, kTile, k, z.dim,
                            T(dq.add || j > 0), dq.data + query_row * z.dim, z.dim);
            }
          }
        }
      }
    }
  }
}

Sizes sizes_of(const Tensor& query, const Tensor& key, const Tensor& value) {
  FULCRUM_REQUIRE(
      query.rank() == 4 && key.rank() == 4 && value.rank() == 4 && query.dim(0) == key.dim(0) &&
          query.dim(2) == key.dim(2) && query.dim(3) == key.dim(3) && key.dim(0) == value.dim(0) &&
          key.dim(1) == value.dim(1) && key.dim(2) == value.dim(2),
      "causal_attention: query [B, H, S, D], key [B, KV, S, D], value [B, KV, S, Dv]; got "
      "{}, {}, {}",
      query.shape(), key.shape(), value.shape());
  FULCRUM_REQUIRE(key.dim(1) >= 1 && query.dim(1) % key.dim(1) == 0 && query.dim(3) >= 1,
                  "causal_attention: the query heads must be a multiple of the key heads, and D at "
                  "least 1; got {}, {}",
                  query.shape(), key.shape());
  FULCRUM_REQUIRE(query.dtype() == key.dtype() && query.dtype() == value.dtype(),
                  "causal_attention: one dtype for all; got {}, {}, {}", query.dtype(), key.dtype(),
                  value.dtype());
  return {query.dim(0), query.dim(1), key.dim(1), query.dim(2), query.dim(3), value.dim(3)};
}

}  // namespace

Tensor causal_attention(const Tensor& query, const Tensor& key, const Tensor& value, double scale) {
  const Sizes z = sizes_of(query, key, value);
  Tensor output =
      Tensor::empty({z.batch, z.length, z.heads, z.value_dim}, query.dtype(), query.device());
  const Tensor log_sum = Tensor::empty({z.batch, z.heads, z.length}, query.dtype(), query.device());
  dispatch_floating("causal_attention", query.dtype(), [&]<class T>() {
    forward(z, query.data<T>(), key.data<T>(), value.data<T>(), static_cast<T>(scale),
            output.data<T>(), log_sum.data<T>());
  });
  if (Tape* tape = Tape::recording({query, key, value})) {
    tape->record("causal_attention", {query, key, value}, {&output},
                 [=, query = query.detach(), key = key.detach(), value = value.detach(),
                  output = output.detach()](Backward& b) {
                   const Tensor grad = b.grad(0);
                   const auto same = [&](std::size_t i, std::size_t j) {
                     return b.needs(i) && b.needs(j) && &b.slot(i) == &b.slot(j);
                   };
                   // One tensor in several roles: its tiles are not finished one role after the
                   // other, so no role may begin by overwriting.
                   const bool shared = same(0, 1) || same(0, 2) || same(1, 2);
                   dispatch_floating("causal_attention", query.dtype(), [&]<class T>() {
                     const auto target = [&](std::size_t input) {
                       if (!b.needs(input)) return Target<T>{};
                       const GradSlot::Target t = b.target(input);
                       if (shared && !t.add) t.tensor.zero();
                       return Target<T>{t.tensor.data<T>(), shared || t.add};
                     };
                     const Target<T> dq = target(0);
                     const Target<T> dk = target(1);
                     const Target<T> dv = target(2);
                     backward<T>(z,
                                 {query.data<T>(), key.data<T>(), value.data<T>(), output.data<T>(),
                                  log_sum.data<T>(), grad.data<T>()},
                                 static_cast<T>(scale), dq, dk, dv);
                   });
                 });
  }
  return output;
}

}  // namespace fulcrum::ops
