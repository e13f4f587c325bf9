#include "framework/ops/swiglu.h"

#include "framework/autograd/tape.h"
#include "framework/core/vector_math.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 8192;  // elements from which threads pay

template <class T>
void forward(const T* gate_up, std::int64_t rows, std::int64_t f, T* y) {
#pragma omp parallel for schedule(static) if (rows * f > kParallel)
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* gate = gate_up + r * 2 * f;
    const T* up = gate + f;
    T* out = y + r * f;
#pragma omp simd
    for (std::int64_t i = 0; i < f; ++i) out[i] = fast_silu(gate[i]) * up[i];
  }
}

// silu'(g) = s (1 + g (1 − s)) with s = sigmoid(g)
template <class T>
void backward(const T* gate_up, const T* g, std::int64_t rows, std::int64_t f, T* d, bool add) {
#pragma omp parallel for schedule(static) if (rows * f > kParallel)
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* gate = gate_up + r * 2 * f;
    const T* up = gate + f;
    const T* gr = g + r * f;
    T* dgate = d + r * 2 * f;
    T* dup = dgate + f;
    if (add) {
#pragma omp simd
      for (std::int64_t i = 0; i < f; ++i) {
        const T s = fast_sigmoid(gate[i]);
        dgate[i] += gr[i] * up[i] * (s * (T(1) + gate[i] * (T(1) - s)));
        dup[i] += gr[i] * (gate[i] * s);
      }
    } else {
#pragma omp simd
      for (std::int64_t i = 0; i < f; ++i) {
        const T s = fast_sigmoid(gate[i]);
        dgate[i] = gr[i] * up[i] * (s * (T(1) + gate[i] * (T(1) - s)));
        dup[i] = gr[i] * (gate[i] * s);
      }
    }
  }
}

}  // namespace

Tensor swiglu(const Tensor& gate_up) {
  FULCRUM_REQUIRE(gate_up.rank() == 2 && gate_up.dim(1) % 2 == 0,
                  "swiglu: needs [rows, 2 f], gate beside up; got {}", gate_up.shape());
  const std::int64_t rows = gate_up.dim(0);
  const std::int64_t f = gate_up.dim(1) / 2;
  Tensor y = Tensor::empty({rows, f}, gate_up.dtype());
  dispatch_floating("swiglu", y.dtype(),
                    [&]<class T>() { forward<T>(gate_up.data<T>(), rows, f, y.data<T>()); });
  if (Tape* tape = Tape::recording({gate_up})) {
    tape->record("swiglu", {gate_up}, {&y}, [gate_up = gate_up.detach(), rows, f](Backward& b) {
      const Tensor g = b.grad(0);
      const auto target = b.target(0);
      dispatch_floating("swiglu", g.dtype(), [&]<class T>() {
        backward<T>(gate_up.data<T>(), g.data<T>(), rows, f, target.tensor.data<T>(), target.add);
      });
    });
  }
  return y;
}

}  // namespace fulcrum::ops
