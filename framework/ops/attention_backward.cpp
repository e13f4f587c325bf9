#include "framework/core/tensor.h"
#include "framework/core/vector_math.h"
#include "framework/ops/attention_kernels.h"
#include "framework/ops/gemm.h"

namespace fulcrum::ops {
namespace {

// One query head prepared for backward: per tile the transposed queries, the output gradient
// straight and transposed, and for each row ⟨do, o⟩.
template <class T>
class QueryHead {
 public:
  explicit QueryHead(const AttentionSizes& z)
      : z_(z),
        storage_(Tensor::empty({z.tiles() * kTile * (z.dim + 2 * z.value_dim + 2)}, dtype_of<T>)) {}

  // Head h of sequence b; query and log_sum start at that head.
  void load(const T* query, const T* log_sum, const T* output, const T* grad, std::int64_t b,
            std::int64_t h) {
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
      std::copy_n(log_sum + first, rows, this->log_sum(i));
      std::fill(this->log_sum(i) + rows, this->log_sum(i) + kTile, T{0});
      std::fill(delta(i) + rows, delta(i) + kTile, T{0});
    }
  }

  T* query_turned(std::int64_t i) const { return part(0, i, z_.dim); }
  T* output_grad(std::int64_t i) const { return part(z_.dim, i, z_.value_dim); }
  T* output_grad_turned(std::int64_t i) const {
    return part(z_.dim + z_.value_dim, i, z_.value_dim);
  }
  T* delta(std::int64_t i) const { return part(z_.dim + 2 * z_.value_dim, i, 1); }
  T* log_sum(std::int64_t i) const { return part(z_.dim + 2 * z_.value_dim + 1, i, 1); }

 private:
  // Tile i of the part that starts after `before` columns.
  T* part(std::int64_t before, std::int64_t i, std::int64_t width) const {
    return storage_.data<T>() + kTile * (before * z_.tiles() + i * width);
  }

  const AttentionSizes& z_;
  Tensor storage_;
};

// Transposed tiles [keys, queries]: scores become probabilities p, and their gradients p · (dp −
// delta). Row r is not seen by the first hidden + r queries.
template <class T>
void probability_tile(std::int64_t keys, std::int64_t hidden, const T* log_sum, const T* delta,
                      T* scores, T* grads) {
  for (std::int64_t r = 0; r < keys; ++r) {
    T* p = scores + r * kTile;
    T* g = grads + r * kTile;
    if (hidden + r > 0) hide(p, 0, hidden + r);
#pragma omp simd
    for (std::int64_t c = 0; c < kTile; ++c) {
      p[c] = fast_exp(p[c] - log_sum[c]);
      g[c] = p[c] * (g[c] - delta[c]);
    }
  }
}

// Backward of one thread.
template <class T>
class BackwardPass {
 public:
  BackwardPass(const AttentionSizes& z, const AttentionInputs<T>& in,
               const AttentionOutputs<T>& out, T scale, const AttentionTarget<T>& dq,
               const AttentionTarget<T>& dk, const AttentionTarget<T>& dv)
      : z_(z),
        in_(in),
        out_(out),
        scale_(scale),
        dq_(dq),
        dk_(dk),
        dv_(dv),
        head_(z),
        scratch_(Tensor::zeros({2, kTile * kTile}, dtype_of<T>)),
        p_(scratch_.data<T>()),
        ds_(p_ + kTile * kTile) {}

  // Key head kv of all sequences (b · KV + its head) with the query heads of its group.
  void run(std::int64_t kv) {
    for (std::int64_t member = 0; member < z_.group(); ++member) {
      const std::int64_t q = kv * z_.group() + member;  // b · H + h
      const std::int64_t query_row = q * z_.length;
      head_.load(in_.query + query_row * z_.dim, out_.log_sum + query_row, out_.output, out_.grad,
                 q / z_.heads, q % z_.heads);
      for (std::int64_t j = 0; j < z_.tiles(); ++j) {
        const std::int64_t key_row = kv * z_.length + j * kTile;
        const std::int64_t keys = z_.rows(j);
        // The diagonal in halves: the lower half of the keys is seen by no query of the upper half.
        const std::int64_t half = std::min(keys, kTile / 2);
        step(key_row, half, query_row, j, 0, true, member == 0, j == 0);
        if (keys > half) {
          step(key_row + half, keys - half, query_row, j, half, true, member == 0, false);
        }
        for (std::int64_t i = j + 1; i < z_.tiles(); ++i) {
          step(key_row, keys, query_row, i, 0, false, false, j == 0);
        }
      }
    }
  }

 private:
  // Rows key_row .. key_row + keys against the queries of tile i from its row `first` on, where
  // query_row is the head's first row. first_of_keys and first_of_queries: nothing has been written
  // to their gradients yet.
  void step(std::int64_t key_row, std::int64_t keys, std::int64_t query_row, std::int64_t i,
            std::int64_t first, bool diagonal, bool first_of_keys, bool first_of_queries) {
    const std::int64_t queries = z_.rows(i) - first;
    const std::int64_t dim = z_.dim;
    const std::int64_t width = z_.value_dim;
    const T* k = in_.key + key_row * dim;
    const T* v = in_.value + key_row * width;
    const T* p = p_ + first;
    const T* ds = ds_ + first;
    query_row += i * kTile + first;
    exact_gemm<T>(false, false, keys, queries, dim, scale_, k, dim, head_.query_turned(i) + first,
                  kTile, T{0}, p_ + first, kTile);
    exact_gemm<T>(false, false, keys, queries, width, T{1}, v, width,
                  head_.output_grad_turned(i) + first, kTile, T{0}, ds_ + first, kTile);
    probability_tile(keys, diagonal ? first : -kTile, head_.log_sum(i), head_.delta(i), p_, ds_);
    if (dv_.data != nullptr) {
      exact_gemm<T>(false, false, keys, width, queries, T{1}, p, kTile,
                    head_.output_grad(i) + first * width, width, T(dv_.add || !first_of_keys),
                    dv_.data + key_row * width, width);
    }
    if (dk_.data != nullptr) {
      exact_gemm<T>(false, false, keys, dim, queries, scale_, ds, kTile,
                    in_.query + query_row * dim, dim, T(dk_.add || !first_of_keys),
                    dk_.data + key_row * dim, dim);
    }
    if (dq_.data != nullptr) {
      exact_gemm<T>(true, false, queries, dim, keys, scale_, ds, kTile, k, dim,
                    T(dq_.add || !first_of_queries), dq_.data + query_row * dim, dim);
    }
  }

  const AttentionSizes& z_;
  const AttentionInputs<T>& in_;
  const AttentionOutputs<T>& out_;
  T scale_;
  const AttentionTarget<T>&dq_, &dk_, &dv_;
  QueryHead<T> head_;
  Tensor scratch_;
  T *p_, *ds_;
};

}  // namespace

template <class T>
void attention_backward(const AttentionSizes& z, const AttentionInputs<T>& in,
                        const AttentionOutputs<T>& out, T scale, const AttentionTarget<T>& dq,
                        const AttentionTarget<T>& dk, const AttentionTarget<T>& dv) {
#pragma omp parallel if (z.parallel())
  {
    BackwardPass<T> pass(z, in, out, scale, dq, dk, dv);
#pragma omp for schedule(dynamic)
    for (std::int64_t kv = 0; kv < z.batch * z.kv_heads; ++kv) pass.run(kv);
  }
}

template void attention_backward<float>(const AttentionSizes&, const AttentionInputs<float>&,
                                        const AttentionOutputs<float>&, float,
                                        const AttentionTarget<float>&,
                                        const AttentionTarget<float>&,
                                        const AttentionTarget<float>&);
template void attention_backward<double>(const AttentionSizes&, const AttentionInputs<double>&,
                                         const AttentionOutputs<double>&, double,
                                         const AttentionTarget<double>&,
                                         const AttentionTarget<double>&,
                                         const AttentionTarget<double>&);

}  // namespace fulcrum::ops
