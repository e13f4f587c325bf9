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
// delta). On the diagonal key r is seen by the queries from r on.
template <class T>
void probability_tile(std::int64_t keys, bool diagonal, const T* log_sum, const T* delta, T* scores,
                      T* grads) {
  for (std::int64_t r = 0; r < keys; ++r) {
    T* p = scores + r * kTile;
    T* g = grads + r * kTile;
    if (diagonal) hide(p, 0, r);
#pragma omp simd
    for (std::int64_t c = 0; c < kTile; ++c) {
      p[c] = fast_exp(p[c] - log_sum[c]);
      g[c] = p[c] * (g[c] - delta[c]);
    }
  }
}

}  // namespace

template <class T>
void attention_backward(const AttentionSizes& z, const AttentionInputs<T>& in,
                        const AttentionOutputs<T>& out, T scale, const AttentionTarget<T>& dq,
                        const AttentionTarget<T>& dk, const AttentionTarget<T>& dv) {
#pragma omp parallel if (z.parallel())
  {
    QueryHead<T> head(z);
    const Tensor scratch = Tensor::zeros({2, kTile * kTile}, dtype_of<T>);
    T* p = scratch.data<T>();
    T* ds = p + kTile * kTile;
#pragma omp for schedule(dynamic)
    for (std::int64_t kv = 0; kv < z.batch * z.kv_heads; ++kv) {  // b · KV + its head
      for (std::int64_t member = 0; member < z.group(); ++member) {
        const std::int64_t query_head = kv * z.group() + member;  // b · H + h
        const std::int64_t first = query_head * z.length;
        head.load(in.query + first * z.dim, out.log_sum + first, out.output, out.grad,
                  query_head / z.heads, query_head % z.heads);
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
            probability_tile(keys, i == j, head.log_sum(i), head.delta(i), p, ds);
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
