#include "framework/ops/elementwise.h"

#include "framework/autograd/tape.h"
#include "framework/core/cuda_elementwise.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/elementwise_cuda.h"

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
  dispatch(
      "scale", x,
      [&]<class T>() {
        const T* in = x.data<T>();
        T* out = y.data<T>();
        const T f = static_cast<T>(factor);
        const std::int64_t n = x.numel();
#pragma omp parallel for simd schedule(static) if (n > kParallel)
        for (std::int64_t i = 0; i < n; ++i) out[i] = f * in[i];
      },
      [&] { cuda::scale(x, factor, y); });
  return y;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  FULCRUM_REQUIRE(a.shape() == b.shape() && a.dtype() == b.dtype(),
                  "add: shapes and dtypes must agree; got {} {} and {} {}", a.dtype(), a.shape(),
                  b.dtype(), b.shape());
  Tensor y = Tensor::empty_like(a);
  dispatch(
      "add", a,
      [&]<class T>() {
        const T* p = a.data<T>();
        const T* q = b.data<T>();
        T* out = y.data<T>();
        const std::int64_t n = a.numel();
#pragma omp parallel for simd schedule(static) if (n > kParallel)
        for (std::int64_t i = 0; i < n; ++i) out[i] = p[i] + q[i];
      },
      [&] { cuda_add(a, b, y); });
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
      x.rank() >= 1 && bias.rank() == 1 && bias.dim(0) == x.dim(-1) && suits(bias, x),
      "add_bias: x must be [..., width] and bias [width] of one dtype; got {} {} and {} {}",
      x.dtype(), x.shape(), bias.dtype(), bias.shape());
  const std::int64_t width = x.dim(-1);
  const std::int64_t rows = width == 0 ? 0 : x.numel() / width;
  Tensor y = Tensor::empty_like(x);
  dispatch(
      "add_bias", x,
      [&]<class T>() {
        const T* b = bias.data<T>();
#pragma omp parallel for schedule(static) if (x.numel() > kParallel)
        for (std::int64_t r = 0; r < rows; ++r) {
          const T* in = x.data<T>() + r * width;
          T* out = y.data<T>() + r * width;
#pragma omp simd
          for (std::int64_t i = 0; i < width; ++i) out[i] = in[i] + b[i];
        }
      },
      [&] { cuda::add_bias(x, bias, y); });
  if (Tape* tape = Tape::recording({x, bias})) {
    tape->record("add_bias", {x, bias}, {&y}, [rows, width](Backward& back) {
      const Tensor dy = back.grad(0);
      back.accumulate(0, dy);
      back.weight_gradient(1, [dy, rows, width](GradSlot& slot) {
        const auto [db, add] = slot.target({width}, accumulation_dtype(dy.dtype()), dy.device());
        dispatch(
            "add_bias", dy,
            [&]<class T>() {
              if (!add) db.zero();
              const T* g = dy.data<T>();
              T* sum = db.data<T>();
              for (std::int64_t r = 0; r < rows; ++r) {
                for (std::int64_t i = 0; i < width; ++i) sum[i] += g[r * width + i];
              }
            },
            [&] {
              cuda::column_sums(dy.reshape({rows, width}), db, add);
            });
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
  Tensor y = Tensor::empty({1}, accumulation_dtype(x.dtype()), x.device());
  dispatch(
      "sum", x,
      [&]<class T>() { y.data<T>()[0] = static_cast<T>(blocked_sum(x.data<T>(), x.numel())); },
      [&] { cuda::sum(x, y); });
  if (Tape* tape = Tape::recording({x})) {
    tape->record("sum", {x}, {&y}, [](Backward& back) {
      const Tensor g = back.grad(0);
      const auto [out, add] = back.target(0);
      dispatch(
          "sum", g,
          [&]<class T>() {
            const T value = g.data<T>()[0];
            T* p = out.data<T>();
            const std::int64_t n = out.numel();
#pragma omp parallel for simd schedule(static) if (n > kParallel)
            for (std::int64_t i = 0; i < n; ++i) p[i] = add ? p[i] + value : value;
          },
          [&] { cuda::broadcast(g, out, add); });
    });
  }
  return y;
}

}  // namespace fulcrum::ops
