#include "framework/ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/core/vector_math.h"
#include "framework/ops/gemm.h"
#include "framework/ops/gemm_bf16.h"

namespace fulcrum::ops {
namespace {

// Bytes of logits of one chunk, within bounds on its tokens: few enough that logits do not fill the
// memory, enough that adding to the head's gradient, which is read and written once a chunk, stays
// cheap beside the product.
constexpr std::int64_t kChunkBytes = std::int64_t{32} << 20;
constexpr std::int64_t kLeastTokens = 256;
constexpr std::int64_t kMostTokens = 512;
constexpr std::int64_t kSumBlock = 1024;  // terms summed in T before the sum goes on in double

struct TokenLoss {
  double nll = 0.0;
  double lse = 0.0;
};

// Log-sum-exp of one row of logits. With kKeep, x becomes exp(x − max), and inverse 1 / Σ of that.
template <bool kKeep, class T>
TokenLoss softmax_row(T* x, std::int64_t vocabulary, std::int32_t target, double* inverse) {
  T largest = x[0];
#pragma omp simd reduction(max : largest)
  for (std::int64_t v = 0; v < vocabulary; ++v) largest = x[v] > largest ? x[v] : largest;
  const double chosen = x[target];
  double total = 0.0;
  for (std::int64_t first = 0; first < vocabulary; first += kSumBlock) {
    const std::int64_t end = std::min(vocabulary, first + kSumBlock);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t v = first; v < end; ++v) {
      const T e = fast_exp(x[v] - largest);
      if constexpr (kKeep) x[v] = e;
      sum += e;
    }
    total += sum;
  }
  *inverse = 1.0 / total;
  const double lse = static_cast<double>(largest) + std::log(total);
  return {lse - chosen, lse};
}

// Gradient of one row: e · factor, less one `scale` at the target; stored as the products read it.
template <class T>
void store_row(const T* e, std::int64_t vocabulary, T factor, T* out) {
#pragma omp simd
  for (std::int64_t v = 0; v < vocabulary; ++v) out[v] = factor * e[v];
}

void store_row(const float* e, std::int64_t vocabulary, float factor, BFloat16* out) {
  round_row(e, vocabulary, factor, out);
}

// Softmax, losses and, with kGradient, gradients of a chunk's logits [tokens, vocabulary]. G is T
// (then gradient may be the logits) or BFloat16.
template <bool kGradient, class T, class G>
void softmax_chunk(T* logits, const std::int32_t* targets, std::int64_t tokens,
                   std::int64_t vocabulary, double scale, double z_weight, TokenLoss* losses,
                   G* gradient) {
#pragma omp parallel for schedule(static) if (tokens * vocabulary > 16384)
  for (std::int64_t t = 0; t < tokens; ++t) {
    T* x = logits + t * vocabulary;
    G* g = kGradient ? gradient + t * vocabulary : nullptr;
    const std::int32_t target = targets[t];
    if (target < 0) {
      losses[t] = {};
      if constexpr (kGradient) std::fill_n(g, vocabulary, G(0.0f));
      continue;
    }
    double inverse = 0.0;
    losses[t] = softmax_row<kGradient>(x, vocabulary, target, &inverse);
    if constexpr (kGradient) {
      const double factor = scale * (1.0 + 2.0 * z_weight * losses[t].lse) * inverse;
      const T at_target = static_cast<T>(factor * x[target] - scale);
      store_row(x, vocabulary, static_cast<T>(factor), g);
      g[target] = G(at_target);
    }
  }
}

// out (+)= factor · x
void scaled_into(const Tensor& x, double factor, const GradSlot::Target& out) {
  dispatch_floating("linear_cross_entropy", x.dtype(), [&]<class T>() {
    const T* from = x.data<T>();
    T* to = out.tensor.data<T>();
    const T f = static_cast<T>(factor);
    const std::int64_t n = x.numel();
    if (out.add) {
#pragma omp parallel for simd schedule(static) if (n > 32768)
      for (std::int64_t i = 0; i < n; ++i) to[i] += f * from[i];
    } else {
#pragma omp parallel for simd schedule(static) if (n > 32768)
      for (std::int64_t i = 0; i < n; ++i) to[i] = f * from[i];
    }
  });
}

void check_arguments(const Tensor& hidden, const Tensor& head, const Tensor& targets) {
  FULCRUM_REQUIRE(
      hidden.rank() == 2 && head.rank() == 2 && hidden.dim(1) == head.dim(1) &&
          hidden.dtype() == head.dtype(),
      "linear_cross_entropy: needs hidden [n, d] and head [V, d] of one dtype; got {} {} and {} {}",
      hidden.dtype(), hidden.shape(), head.dtype(), head.shape());
  FULCRUM_REQUIRE(targets.dtype() == DType::i32 && targets.shape() == Shape({hidden.dim(0)}),
                  "linear_cross_entropy: needs targets i32 [{}]; got {} {}", hidden.dim(0),
                  targets.dtype(), targets.shape());
  const std::int32_t* target = targets.data<std::int32_t>();
  for (std::int64_t t = 0; t < targets.dim(0); ++t) {
    FULCRUM_REQUIRE(
        target[t] >= -1 && target[t] < head.dim(0),
        "linear_cross_entropy: target {} at position {} is neither -1 nor in a vocabulary of {}",
        target[t], t, head.dim(0));
  }
}

}  // namespace

std::int64_t cross_entropy_chunk(std::int64_t vocabulary, std::int64_t element) {
  return std::clamp(kChunkBytes / (vocabulary * element) / 64 * 64, kLeastTokens, kMostTokens);
}

CrossEntropy linear_cross_entropy(const Tensor& hidden, const Tensor& head, const Tensor& targets,
                                  double scale, double z_weight) {
  check_arguments(hidden, head, targets);
  const std::int64_t n = hidden.dim(0);
  const std::int64_t vocabulary = head.dim(0);
  const DType dtype = hidden.dtype();
  const MatmulPrecision precision = matmul_precision();
  const Tensor x = matmul_operand(hidden.detach(), precision);
  const Tensor w = matmul_operand(head.detach(), precision);

  Tape* tape = Tape::recording({hidden, head});
  Tensor dhidden, dhead;
  if (tape != nullptr && hidden.requires_grad()) dhidden = Tensor::empty(hidden.shape(), dtype);
  if (tape != nullptr && head.requires_grad()) dhead = Tensor::empty(head.shape(), dtype);
  if (n == 0 && dhead.defined()) dhead.zero();

  const std::int64_t chunk =
      std::min(n, cross_entropy_chunk(std::max<std::int64_t>(vocabulary, 1), size_of(dtype)));
  const Tensor logits = Tensor::empty({chunk, vocabulary}, dtype);
  Tensor gradient = logits;
  if (tape != nullptr && x.dtype() != dtype) gradient = Tensor::empty(logits.shape(), x.dtype());
  std::vector<TokenLoss> losses(static_cast<std::size_t>(n));

  for (std::int64_t first = 0; first < n; first += chunk) {
    const std::int64_t end = std::min(n, first + chunk);
    const Tensor rows = x.slice(first, end);
    const Tensor z = logits.slice(0, end - first);
    const Tensor g = gradient.slice(0, end - first);
    multiply(rows, false, w, true, z, false);
    dispatch_floating("linear_cross_entropy", dtype, [&]<class T>() {
      const auto run = [&]<bool kGradient, class G>(G* out) {
        softmax_chunk<kGradient>(z.data<T>(), targets.data<std::int32_t>() + first, end - first,
                                 vocabulary, scale, z_weight, losses.data() + first, out);
      };
      if (tape == nullptr) return run.template operator()<false>(z.data<T>());
      if constexpr (std::is_same_v<T, float>) {
        if (g.dtype() == DType::bf16) return run.template operator()<true>(g.data<BFloat16>());
      }
      run.template operator()<true>(g.data<T>());
    });
    if (dhidden.defined()) multiply(g, false, w, false, dhidden.slice(first, end), false);
    if (dhead.defined()) multiply(g, true, rows, false, dhead, first > 0);
  }

  double nll = 0.0;
  double squares = 0.0;
  for (const TokenLoss& token : losses) {
    nll += token.nll;
    squares += token.lse * token.lse;
  }
  CrossEntropy y{Tensor::full({1}, scale * (nll + z_weight * squares), dtype),
                 Tensor::full({1}, nll, DType::f64)};
  if (tape != nullptr) {
    tape->record("linear_cross_entropy", {hidden, head}, {&y.loss}, [dhidden, dhead](Backward& b) {
      const Tensor g = b.grad(0);
      const double seed = g.dtype() == DType::f64 ? g.data<double>()[0] : g.data<float>()[0];
      if (b.needs(0)) {
        if (seed == 1.0) {
          b.accumulate(0, dhidden);
        } else {
          scaled_into(dhidden, seed, b.target(0));
        }
      }
      b.weight_gradient(1, [dhead, seed](GradSlot& slot) {
        scaled_into(dhead, seed, slot.target(dhead.shape(), dhead.dtype(), dhead.device()));
      });
    });
  }
  return y;
}

}  // namespace fulcrum::ops
