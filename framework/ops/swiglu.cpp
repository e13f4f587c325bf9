#include "framework/ops/swiglu.h"

#include "framework/autograd/tape.h"
#include "framework/core/vector_math.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/swiglu_cuda.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 8192;  // elements from which threads pay

// source null: every row counts once.
template <class T>
void forward(const T* gate_up, const T* weights, const std::int64_t* source, std::int64_t rows,
             std::int64_t f, T* y) {
#pragma omp parallel for schedule(static) if (rows * f > kParallel)
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* gate = gate_up + r * 2 * f;
    const T* up = gate + f;
    T* out = y + r * f;
    const T w = source == nullptr ? T(1) : weights[source[r]];
#pragma omp simd
    for (std::int64_t i = 0; i < f; ++i) out[i] = w * (fast_silu(gate[i]) * up[i]);
  }
}

// silu'(g) = s (1 + g (1 − s)) with s = sigmoid(g). dweights may be null; it holds zeros.
template <class T>
void backward(const T* gate_up, const T* weights, const std::int64_t* source, const T* g,
              std::int64_t rows, std::int64_t f, T* d, bool add, T* dweights) {
#pragma omp parallel for schedule(static) if (rows * f > kParallel)
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* gate = gate_up + r * 2 * f;
    const T* up = gate + f;
    const T* gr = g + r * f;
    T* dgate = d + r * 2 * f;
    T* dup = dgate + f;
    const T w = source == nullptr ? T(1) : weights[source[r]];
    if (dweights != nullptr) {
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = 0; i < f; ++i) sum += gr[i] * (fast_silu(gate[i]) * up[i]);
      dweights[source[r]] = sum;
    }
    if (add) {
#pragma omp simd
      for (std::int64_t i = 0; i < f; ++i) {
        const T s = fast_sigmoid(gate[i]);
        dgate[i] += w * gr[i] * up[i] * (s * (T(1) + gate[i] * (T(1) - s)));
        dup[i] += w * gr[i] * (gate[i] * s);
      }
    } else {
#pragma omp simd
      for (std::int64_t i = 0; i < f; ++i) {
        const T s = fast_sigmoid(gate[i]);
        dgate[i] = w * gr[i] * up[i] * (s * (T(1) + gate[i] * (T(1) - s)));
        dup[i] = w * gr[i] * (gate[i] * s);
      }
    }
  }
}

template <class T>
const T* data_or_null(const Tensor& x) {
  return x.defined() ? x.data<T>() : nullptr;
}

// weights and the permutation's tensors may be undefined.
Tensor run(const char* op, const Tensor& gate_up, const Tensor& weights, const Permutation& p) {
  FULCRUM_REQUIRE(gate_up.rank() == 2 && gate_up.dim(1) % 2 == 0,
                  "{}: needs [rows, 2 f], gate beside up; got {}", op, gate_up.shape());
  const std::int64_t rows = gate_up.dim(0);
  const std::int64_t f = gate_up.dim(1) / 2;
  Tensor y = Tensor::empty({rows, f}, gate_up.dtype(), gate_up.device());
  dispatch(
      op, gate_up,
      [&]<class T>() {
        forward<T>(gate_up.data<T>(), data_or_null<T>(weights),
                   data_or_null<std::int64_t>(p.source), rows, f, y.data<T>());
      },
      [&] {
        cuda::swiglu(gate_up, {weights, p.source, p.slot}, y);
      });
  Tape* tape = Tape::recording({gate_up, weights});
  if (tape == nullptr) return y;
  tape->record(
      op, {gate_up, weights}, {&y},
      [op, gate_up = gate_up.detach(), weights = weights.detach(), p, rows, f](Backward& b) {
        const Tensor g = b.grad(0);
        const bool weighted = b.needs(1);
        // One pass makes both gradients.
        GradSlot::Target d{Tensor(), false};
        if (b.needs(0)) {
          d = b.target(0);
        } else {
          d.tensor = Tensor::empty_like(gate_up);
        }
        Tensor dweights;
        if (weighted) dweights = Tensor::empty_like(weights);
        dispatch(
            op, gate_up,
            [&]<class T>() {
              if (weighted) dweights.zero();
              backward<T>(gate_up.data<T>(), data_or_null<T>(weights),
                          data_or_null<std::int64_t>(p.source), g.data<T>(), rows, f,
                          d.tensor.data<T>(), d.add, weighted ? dweights.data<T>() : nullptr);
            },
            [&] {
              cuda::swiglu_backward(gate_up, {weights, p.source, p.slot}, g, d.tensor, d.add,
                                    dweights);
            });
        if (weighted) b.accumulate(1, dweights);
      });
  return y;
}

}  // namespace

Tensor swiglu(const Tensor& gate_up) { return run("swiglu", gate_up, {}, {}); }

Tensor weighted_swiglu(const Tensor& gate_up, const Tensor& weights, const Permutation& p) {
  constexpr const char* kOp = "weighted_swiglu";
  FULCRUM_REQUIRE(p.source.defined() && p.slot.defined(), "{}: needs a permutation", kOp);
  FULCRUM_REQUIRE(
      gate_up.rank() == 2 && gate_up.dim(0) == p.rows() && weights.shape() == p.slot.shape() &&
          suits(weights, gate_up) && p.slot.device() == gate_up.device(),
      "{}: needs [{}, 2 f] and weights {} {} on {}; got {} {} on {} and {} {} on {}", kOp, p.rows(),
      accumulation_dtype(gate_up.dtype()), p.slot.shape(), p.slot.device(), gate_up.dtype(),
      gate_up.shape(), gate_up.device(), weights.dtype(), weights.shape(), weights.device());
  return run(kOp, gate_up, weights, p);
}

}  // namespace fulcrum::ops
