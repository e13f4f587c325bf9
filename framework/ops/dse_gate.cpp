#include "framework/ops/dse_gate.h"

#include <algorithm>
#include <cmath>

#include "framework/autograd/tape.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/dse_gate_cuda.h"
#include "framework/ops/sum_rows_cuda.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 16384;  // elements from which threads pay
constexpr std::int64_t kBlock = 64;        // tokens whose weight gradients are summed at once
constexpr double kRootFloor = 1e-6;

// What backward needs of a token.
template <class T>
struct Score {
  T s;           // before the root
  T hidden_rms;  // 1 / √(mean(hidden²) + eps)
  T key_rms;
};
constexpr std::int64_t kScoreSize = 3;

template <class T>
T gate_of(T s, bool signed_sqrt) {
  const T magnitude = std::sqrt(std::max(std::abs(s), static_cast<T>(kRootFloor)));
  const T r = !signed_sqrt ? s : s > 0 ? magnitude : s < 0 ? -magnitude : T{0};
  return T{1} / (T{1} + std::exp(-r));
}

// dα/ds
template <class T>
T gate_slope(T s, T gate, bool signed_sqrt) {
  const T sigmoid = gate * (T{1} - gate);
  if (!signed_sqrt) return sigmoid;
  const T magnitude = std::abs(s);
  return magnitude < static_cast<T>(kRootFloor) ? T{0} : sigmoid / (T{2} * std::sqrt(magnitude));
}

template <class T>
void forward(const T* hidden, const T* key, const T* value, const T* scale, std::int64_t n,
             std::int64_t d, T eps, bool signed_sqrt, Score<T>* scores, T* out, T* gate,
             T* square_means) {
  const T root = std::sqrt(static_cast<T>(d));
#pragma omp parallel for schedule(static) if (n * d > kParallel)
  for (std::int64_t t = 0; t < n; ++t) {
    const T* h = hidden + t * d;
    const T* k = key + t * d;
    const T* v = value + t * d;
    T hh = 0, kk = 0, hk = 0, vv = 0;
#pragma omp simd reduction(+ : hh, kk, hk, vv)
    for (std::int64_t i = 0; i < d; ++i) {
      hh += h[i] * h[i];
      kk += k[i] * k[i];
      hk += h[i] * k[i] * scale[i];
      vv += v[i] * v[i];
    }
    Score<T>& score = scores[t];
    score.hidden_rms = T{1} / std::sqrt(hh / d + eps);
    score.key_rms = T{1} / std::sqrt(kk / d + eps);
    score.s = hk * score.hidden_rms * score.key_rms / root;
    const T alpha = gate_of(score.s, signed_sqrt);
    gate[t] = alpha;
    square_means[t] = alpha * alpha * vv / d;
#pragma omp simd
    for (std::int64_t i = 0; i < d; ++i) out[t * d + i] = alpha * v[i];
  }
}

// A gradient buffer, or none when the input wants no gradient.
template <class T>
struct Sink {
  T* data = nullptr;
  bool add = false;

  // Token by token: row(i) is the gradient of element i.
  template <class Row>
  void write(std::int64_t begin, std::int64_t d, Row row) const {
    if (data == nullptr) return;
    T* out = data + begin;
    if (add) {
#pragma omp simd
      for (std::int64_t i = 0; i < d; ++i) out[i] += row(i);
    } else {
#pragma omp simd
      for (std::int64_t i = 0; i < d; ++i) out[i] = row(i);
    }
  }
};

template <class T>
Sink<T> sink(Backward& b, std::size_t input) {
  if (!b.needs(input)) return {};
  const GradSlot::Target target = b.target(input);
  return {target.tensor.data<T>(), target.add};
}

// With q = dL/ds · hidden_rms · key_rms / √d and c = hidden_norm ⊙ key_norm:
//   dL/dhidden = q·(c ⊙ key) − dL/ds·s·hidden_rms²/d · hidden, and the like for key;
//   Σ_t q·(hidden ⊙ key) gives both norm gradients, times the other norm.
template <class T>
void backward(const T* gradient, const T* hidden, const T* key, const T* value, const T* scale,
              const Score<T>* scores, std::int64_t n, std::int64_t d, bool signed_sqrt,
              const Sink<T>& d_hidden, const Sink<T>& d_key, const Sink<T>& d_value, T* products) {
  const T root = std::sqrt(static_cast<T>(d));
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
#pragma omp parallel for schedule(static) if (n * d > kParallel)
  for (std::int64_t block = 0; block < blocks; ++block) {
    T* product = products + block * d;
    std::fill_n(product, d, T{0});
    for (std::int64_t t = block * kBlock; t < std::min(n, (block + 1) * kBlock); ++t) {
      const T* g = gradient + t * d;
      const T* h = hidden + t * d;
      const T* k = key + t * d;
      const T* v = value + t * d;
      T slope = 0;
#pragma omp simd reduction(+ : slope)
      for (std::int64_t i = 0; i < d; ++i) slope += g[i] * v[i];
      const Score<T> score = scores[t];
      const T alpha = gate_of(score.s, signed_sqrt);
      const T ds = slope * gate_slope(score.s, alpha, signed_sqrt);
      const T q = ds * score.hidden_rms * score.key_rms / root;
      const T to_hidden = ds * score.s * score.hidden_rms * score.hidden_rms / d;
      const T to_key = ds * score.s * score.key_rms * score.key_rms / d;
      d_hidden.write(t * d, d,
                     [=](std::int64_t i) { return q * scale[i] * k[i] - to_hidden * h[i]; });
      d_key.write(t * d, d, [=](std::int64_t i) { return q * scale[i] * h[i] - to_key * k[i]; });
      d_value.write(t * d, d, [=](std::int64_t i) { return alpha * g[i]; });
#pragma omp simd
      for (std::int64_t i = 0; i < d; ++i) product[i] += q * h[i] * k[i];
    }
  }
}

// Gradient of one norm: the products summed over blocks in order, times the other norm.
template <class T>
void norm_gradient(const T* products, std::int64_t blocks, std::int64_t d, const T* other,
                   const Sink<T>& out) {
  const Tensor total = Tensor::zeros({d}, dtype_of<T>);
  T* sum = total.data<T>();
  for (std::int64_t block = 0; block < blocks; ++block) {
#pragma omp simd
    for (std::int64_t i = 0; i < d; ++i) sum[i] += products[block * d + i];
  }
  out.write(0, d, [=](std::int64_t i) { return sum[i] * other[i]; });
}

template <class T>
Tensor product_of(const Tensor& a, const Tensor& b) {
  const Tensor c = Tensor::empty_like(a);
  for (std::int64_t i = 0; i < a.numel(); ++i) c.data<T>()[i] = a.data<T>()[i] * b.data<T>()[i];
  return c;
}

// Inputs as the tape holds them, and what forward found.
struct Saved {
  GateInputs in;
  Tensor scores;
  bool signed_sqrt;
};

template <class T>
void backward(const Saved& saved, Backward& b) {
  const auto& [h, k, v, hn, kn] = saved.in;
  const std::int64_t n = h.dim(0);
  const std::int64_t d = h.dim(1);
  const Tensor scale = product_of<T>(hn, kn);
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  const Tensor products = Tensor::empty({blocks, d}, v.dtype());
  // In the order of writing, for an input may be given twice.
  const Sink<T> d_hidden = sink<T>(b, 0);
  const Sink<T> d_key = sink<T>(b, 1);
  const Sink<T> d_value = sink<T>(b, 2);
  backward<T>(b.grad(0).data<T>(), h.data<T>(), k.data<T>(), v.data<T>(), scale.data<T>(),
              reinterpret_cast<const Score<T>*>(saved.scores.data<T>()), n, d, saved.signed_sqrt,
              d_hidden, d_key, d_value, products.data<T>());
  norm_gradient<T>(products.data<T>(), blocks, d, kn.data<T>(), sink<T>(b, 3));
  norm_gradient<T>(products.data<T>(), blocks, d, hn.data<T>(), sink<T>(b, 4));
}

void backward_cuda(const Saved& saved, Backward& b) {
  const auto same = [&](std::size_t i, std::size_t j) {
    return b.needs(i) && b.needs(j) && &b.slot(i) == &b.slot(j);
  };
  // One tensor in several roles: each role's gradient has memory of its own.
  const bool shared = same(0, 1) || same(0, 2) || same(1, 2);
  const auto target = [&](std::size_t input) {
    if (!b.needs(input)) return GradSlot::Target{};
    return shared ? GradSlot::Target{Tensor::empty_like(saved.in.value), false} : b.target(input);
  };
  const GradSlot::Target d_hidden = target(0);
  const GradSlot::Target d_key = target(1);
  const GradSlot::Target d_value = target(2);
  const Tensor partial = cuda::dse_gate_backward(saved.in, saved.signed_sqrt, saved.scores,
                                                 b.grad(0), d_hidden, d_key, d_value);
  if (shared) {
    b.accumulate(0, d_hidden.tensor);
    b.accumulate(1, d_key.tensor);
    b.accumulate(2, d_value.tensor);
  }
  const auto norm = [&](std::size_t input, const Tensor& other) {
    b.weight_gradient(input, [partial, other](GradSlot& slot) {
      const auto [out, add] = slot.target(other.shape(), other.dtype(), other.device());
      cuda::sum_rows(partial, out, add, other);
    });
  };
  norm(3, saved.in.key_norm);
  norm(4, saved.in.hidden_norm);
}

}  // namespace

GatedValue dse_gate(const Tensor& hidden, const Tensor& key, const Tensor& value,
                    const Tensor& hidden_norm, const Tensor& key_norm, double eps,
                    bool signed_sqrt) {
  FULCRUM_REQUIRE(hidden.rank() == 2 && hidden.dim(1) > 0 && key.shape() == hidden.shape() &&
                      value.shape() == hidden.shape(),
                  "dse_gate: hidden, key and value must be [n, d] alike; got {}, {} and {}",
                  hidden.shape(), key.shape(), value.shape());
  const std::int64_t n = hidden.dim(0);
  const std::int64_t d = hidden.dim(1);
  FULCRUM_REQUIRE(hidden_norm.shape() == Shape{d} && key_norm.shape() == Shape{d},
                  "dse_gate: norms must be [{}]; got {} and {}", d, hidden_norm.shape(),
                  key_norm.shape());
  FULCRUM_REQUIRE(key.dtype() == hidden.dtype() && value.dtype() == hidden.dtype() &&
                      suits(hidden_norm, hidden) && suits(key_norm, hidden),
                  "dse_gate: hidden, key and value need one dtype, which the norms suit; got {}, "
                  "{}, {}, {} and {}",
                  hidden.dtype(), key.dtype(), value.dtype(), hidden_norm.dtype(),
                  key_norm.dtype());
  const auto statistic = [&](const Shape& shape) {
    return Tensor::empty(shape, accumulation_dtype(value.dtype()), value.device());
  };
  GatedValue result{Tensor::empty_like(value), statistic({n}), statistic({n})};
  const Saved saved{
      {hidden.detach(), key.detach(), value.detach(), hidden_norm.detach(), key_norm.detach()},
      statistic({n, kScoreSize}),
      signed_sqrt};
  dispatch(
      "dse_gate", value,
      [&]<class T>() {
        const Tensor scale = product_of<T>(hidden_norm, key_norm);
        forward<T>(hidden.data<T>(), key.data<T>(), value.data<T>(), scale.data<T>(), n, d,
                   static_cast<T>(eps), signed_sqrt,
                   reinterpret_cast<Score<T>*>(saved.scores.data<T>()), result.value.data<T>(),
                   result.gate.data<T>(), result.square_means.data<T>());
      },
      [&] {
        cuda::dse_gate(saved.in, eps, signed_sqrt, saved.scores, result.value, result.gate,
                       result.square_means);
      });
  if (Tape* tape = Tape::recording({hidden, key, value, hidden_norm, key_norm})) {
    tape->record("dse_gate", {hidden, key, value, hidden_norm, key_norm}, {&result.value},
                 [saved](Backward& b) {
                   dispatch(
                       "dse_gate", saved.in.value, [&]<class T>() { backward<T>(saved, b); },
                       [&] { backward_cuda(saved, b); });
                 });
  }
  return result;
}

}  // namespace fulcrum::ops
