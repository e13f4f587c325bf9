#include "framework/ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/core/vector_math.h"
#include "framework/ops/cross_entropy_cuda.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/elementwise_cuda.h"
#include "framework/ops/gemm.h"
#include "framework/ops/gemm_bf16.h"

namespace fulcrum::ops {
namespace {

// Bytes of logits of one chunk, within bounds on its tokens: few enough that logits do not fill the
// memory, enough that adding to the head's gradient, which is read and written once a chunk, stays
// cheap beside the product.
struct ChunkBounds {
  std::int64_t bytes, least_tokens, most_tokens;
};
constexpr ChunkBounds kCpuChunk{std::int64_t{32} << 20, 256, 512};
constexpr ChunkBounds kCudaChunk{std::int64_t{512} << 20, 2048, 8192};
// On CUDA, chunks have equal numbers of tokens, a multiple of the first, and rows of logits begin
// at multiples of the second, which products read fastest.
constexpr std::int64_t kTokenTile = 128;
constexpr std::int64_t kColumnTile = 64;
constexpr std::int64_t kSumBlock = 1024;  // terms summed in T before the sum goes on in double

std::int64_t round_up(std::int64_t x, std::int64_t multiple) {
  return (x + multiple - 1) / multiple * multiple;
}

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

// Losses, and the gradients that are defined.
template <class T>
void forward(const Tensor& hidden, const Tensor& head, const Tensor& targets, double scale,
             double z_weight, const Tensor& dhidden, const Tensor& dhead, const CrossEntropy& y) {
  const std::int64_t n = hidden.dim(0);
  const std::int64_t vocabulary = head.dim(0);
  const bool recording = dhidden.defined() || dhead.defined();
  const MatmulPrecision precision = matmul_precision();
  const Tensor x = matmul_operand(hidden, precision);
  const Tensor w = matmul_operand(head, precision);
  const std::int64_t chunk = cross_entropy_chunk(n, vocabulary, sizeof(T), Device{}).tokens;
  const Tensor logits = Tensor::empty({chunk, vocabulary}, hidden.dtype());
  Tensor gradient = logits;
  if (recording && x.dtype() != hidden.dtype()) gradient = Tensor::empty(logits.shape(), x.dtype());
  std::vector<TokenLoss> losses(static_cast<std::size_t>(n));

  for (std::int64_t first = 0; first < n; first += chunk) {
    const std::int64_t end = std::min(n, first + chunk);
    const Tensor rows = x.slice(first, end);
    const Tensor z = logits.slice(0, end - first);
    const Tensor g = gradient.slice(0, end - first);
    multiply(rows, false, w, true, z, false);
    const auto run = [&]<bool kGradient, class G>(G* out) {
      softmax_chunk<kGradient>(z.data<T>(), targets.data<std::int32_t>() + first, end - first,
                               vocabulary, scale, z_weight, losses.data() + first, out);
    };
    if (!recording) {
      run.template operator()<false>(z.data<T>());
    } else if (g.dtype() == DType::bf16) {
      if constexpr (std::is_same_v<T, float>) run.template operator()<true>(g.data<BFloat16>());
    } else {
      run.template operator()<true>(g.data<T>());
    }
    if (dhidden.defined()) multiply(g, false, w, false, dhidden.slice(first, end), false);
    if (dhead.defined()) multiply(g, true, rows, false, dhead, first > 0);
  }

  double nll = 0.0;
  double squares = 0.0;
  for (const TokenLoss& token : losses) {
    nll += token.nll;
    squares += token.lse * token.lse;
  }
  y.loss.fill(scale * (nll + z_weight * squares));
  y.nll_sum.fill(nll);
}

// x = seed · x
void scale_by(const Tensor& x, const Tensor& seed) {
  dispatch(
      "linear_cross_entropy", x,
      [&]<class T>() {
        const T factor = seed.data<T>()[0];
        if (factor == T(1)) return;
        T* p = x.data<T>();
        const std::int64_t n = x.numel();
#pragma omp parallel for simd schedule(static) if (n > 32768)
        for (std::int64_t i = 0; i < n; ++i) p[i] *= factor;
      },
      [&] { cuda::scale_by(x, seed); });
}

// out (+)= seed · x
void scaled_into(const Tensor& x, const Tensor& seed, const GradSlot::Target& out) {
  dispatch(
      "linear_cross_entropy", x,
      [&]<class T>() {
        const T* from = x.data<T>();
        T* to = out.tensor.data<T>();
        const T factor = seed.data<T>()[0];
        const std::int64_t n = x.numel();
        if (out.add) {
#pragma omp parallel for simd schedule(static) if (n > 32768)
          for (std::int64_t i = 0; i < n; ++i) to[i] += factor * from[i];
        } else {
#pragma omp parallel for simd schedule(static) if (n > 32768)
          for (std::int64_t i = 0; i < n; ++i) to[i] = factor * from[i];
        }
      },
      [&] { cuda::scaled_into(x, seed, out.tensor, out.add); });
}

void check_arguments(const Tensor& hidden, const Tensor& head, const Tensor& targets) {
  FULCRUM_REQUIRE(
      hidden.rank() == 2 && head.rank() == 2 && hidden.dim(1) == head.dim(1) &&
          hidden.dtype() == head.dtype(),
      "linear_cross_entropy: needs hidden [n, d] and head [V, d] of one dtype; got {} {} and {} {}",
      hidden.dtype(), hidden.shape(), head.dtype(), head.shape());
  FULCRUM_REQUIRE(targets.dtype() == DType::i32 && targets.shape() == Shape({hidden.dim(0)}) &&
                      targets.device() == hidden.device(),
                  "linear_cross_entropy: needs targets i32 [{}] on {}; got {} {} on {}",
                  hidden.dim(0), hidden.device(), targets.dtype(), targets.shape(),
                  targets.device());
  if (!targets.device().is_cpu()) return;
  const std::int32_t* target = targets.data<std::int32_t>();
  for (std::int64_t t = 0; t < targets.dim(0); ++t) {
    FULCRUM_REQUIRE(
        target[t] >= -1 && target[t] < head.dim(0),
        "linear_cross_entropy: target {} at position {} is neither -1 nor in a vocabulary of {}",
        target[t], t, head.dim(0));
  }
}

}  // namespace

LogitsChunk cross_entropy_chunk(std::int64_t tokens, std::int64_t vocabulary, std::int64_t element,
                                Device device) {
  const bool cuda = device.is_cuda();
  const ChunkBounds& bounds = cuda ? kCudaChunk : kCpuChunk;
  const std::int64_t columns = cuda ? round_up(vocabulary, kColumnTile) : vocabulary;
  const std::int64_t fitting = bounds.bytes / (std::max<std::int64_t>(columns, 1) * element);
  std::int64_t most = std::clamp(fitting / 64 * 64, bounds.least_tokens, bounds.most_tokens);
  if (cuda && tokens > most) {
    const std::int64_t chunks = (tokens + most - 1) / most;
    most = round_up((tokens + chunks - 1) / chunks, kTokenTile);
  }
  return {std::min(tokens, most), columns};
}

CrossEntropy linear_cross_entropy(const Tensor& hidden, const Tensor& head, const Tensor& targets,
                                  double scale, double z_weight) {
  check_arguments(hidden, head, targets);
  const DType sums = accumulation_dtype(hidden.dtype());
  Tape* tape = Tape::recording({hidden, head});
  Tensor dhidden, dhead;
  std::shared_ptr<EarlyGradient> early;
  if (tape != nullptr && hidden.requires_grad()) dhidden = Tensor::empty_like(hidden);
  if (tape != nullptr && head.requires_grad()) {
    early = head.slot()->begin_early(head.shape(), sums, head.device());
    dhead = early->value;
    if (hidden.dim(0) == 0) dhead.zero();
  }
  CrossEntropy y{Tensor::empty({1}, sums, hidden.device()),
                 Tensor::empty({1}, DType::f64, hidden.device())};
  dispatch(
      "linear_cross_entropy", hidden,
      [&]<class T>() {
        forward<T>(hidden.detach(), head.detach(), targets, scale, z_weight, dhidden, dhead, y);
      },
      [&] {
        cuda::linear_cross_entropy(hidden, head, targets, scale, z_weight, dhidden, dhead, y.loss,
                                   y.nll_sum);
      });
  if (tape != nullptr) {
    tape->record("linear_cross_entropy", {hidden, head}, {&y.loss},
                 [dhidden, early, dtype = head.dtype()](Backward& b) {
                   const Tensor seed = b.grad(0);
                   if (b.needs(0)) {
                     scale_by(dhidden, seed);
                     b.accumulate(0, dhidden);
                   }
                   b.weight_gradient(1, [early, seed, dtype](GradSlot& slot) {
                     if (slot.adopt(*early)) return scale_by(early->value, seed);
                     scaled_into(early->value, seed,
                                 slot.target(early->value.shape(), dtype, seed.device()));
                   });
                 });
  }
  return y;
}

}  // namespace fulcrum::ops
