#include "framework/ops/elementwise.h"

#include "framework/autograd/tape.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 32768;  // elements from which threads pay

// Sums in fixed blocks, so that the result does not depend on the number of threads.
constexpr std::int64_t kSumBlock = 4096;

template <class T>
double blocked_sum(const T* x, std::int64_t n) {
  const std::int64_t blocks = (n + kSumBlock - 1) / kSumBlock;
  std::vector<double> partial(static_cast<std::size_t>(blocks));
#pragma omp parallel for schedule(static) if (n > kParallel)
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t end = std::min(n, (b + 1) * kSumBlock);
    double s = 0.0;
#pragma omp simd reduction(+ : s)
    for (std::int64_t i = b * kSumBlock; i < end; ++i) s += x[i];
    partial[b] = s;
  }
  double total = 0.0;
  for (const double p : partial) total += p;
  return total;
}

Tensor scaled(const Tensor& x, double factor) {
  Tensor y = Tensor::empty_like(x);
  dispatch_floating("scale", x.dtype(), [&]<class T>() {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    const T f = static_cast<T>(factor);
    const std::int64_t n = x.numel();
#pragma omp parallel for simd schedule(static) if (n > kParallel)
    for (std::int64_t i = 0; i < n; ++i) out[i] = f * in[i];
  });
  return y;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  FULCRUM_REQUIRE(a.shape() == b.shape() && a.dtype() == b.dtype(),
                  "add: shapes and dtypes must agree; got {} {} and {} {}", a.dtype(), a.shape(),
                  b.dtype(), b.shape());
  Tensor y = Tensor::empty_like(a);
  dispatch_floating("add", a.dtype(), [&]<class T>() {
    const T* p = a.data<T>();
    const T* q = b.data<T>();
    T* out = y.data<T>();
    const std::int64_t n = a.numel();
#pragma omp parallel for simd schedule(static) if (n > kParallel)
    for (std::int64_t i = 0; i < n; ++i) out[i] = p[i] + q[i];
  });
  if (Tape* tape = Tape::recording({a, b})) {
    tape->record("add", {a, b}, {&y}, [](Backward& back) {
      back.accumulate(0, back.grad(0));
      back.accumulate(1, back.grad(0));
    });
  }
  return y;
}

Tensor add_bias(const Tensor& x, const Tensor& bias) {
  FULCRUM_REQUIRE(
      x.rank() >= 1 && bias.rank() == 1 && bias.dim(0) == x.dim(-1) && x.dtype() == bias.dtype(),
      "add_bias: x must be [..., width] and bias [width] of one dtype; got {} {} and {} {}",
      x.dtype(), x.shape(), bias.dtype(), bias.shape());
  const std::int64_t width = x.dim(-1);
  const std::int64_t rows = width == 0 ? 0 : x.numel() / width;
  Tensor y = Tensor::empty_like(x);
  dispatch_floating("add_bias", x.dtype(), [&]<class T>() {
    const T* b = bias.data<T>();
#pragma omp parallel for schedule(static) if (x.numel() > kParallel)
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* in = x.data<T>() + r * width;
      T* out = y.data<T>() + r * width;
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i) out[i] = in[i] + b[i];
    }
  });
  if (Tape* tape = Tape::recording({x, bias})) {
    tape->record("add_bias", {x, bias}, {&y}, [rows, width](Backward& back) {
      const Tensor dy = back.grad(0);
      back.accumulate(0, dy);
      back.weight_gradient(1, [dy, rows, width](GradSlot& slot) {
        const Tensor db = Tensor::zeros({width}, dy.dtype());
        dispatch_floating("add_bias", dy.dtype(), [&]<class T>() {
          const T* g = dy.data<T>();
          T* sum = db.data<T>();
          for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t i = 0; i < width; ++i) sum[i] += g[r * width + i];
          }
        });
        slot.accumulate(db);
      });
    });
  }
  return y;
}

Tensor scale(const Tensor& x, double factor) {
  Tensor y = scaled(x, factor);
  if (Tape* tape = Tape::recording({x})) {
    tape->record("scale", {x}, {&y},
                 [factor](Backward& back) { back.accumulate(0, scaled(back.grad(0), factor)); });
  }
  return y;
}

Tensor sum(const Tensor& x) {
  Tensor y = Tensor::empty({1}, x.dtype());
  dispatch_floating("sum", x.dtype(), [&]<class T>() {
    y.data<T>()[0] = static_cast<T>(blocked_sum(x.data<T>(), x.numel()));
  });
  if (Tape* tape = Tape::recording({x})) {
    tape->record("sum", {x}, {&y}, [shape = x.shape(), dtype = x.dtype()](Backward& back) {
      const Tensor g = back.grad(0);
      const double value = dtype == DType::f64 ? g.data<double>()[0] : g.data<float>()[0];
      back.accumulate(0, Tensor::full(shape, value, dtype));
    });
  }
  return y;
}

}  // namespace fulcrum::ops
