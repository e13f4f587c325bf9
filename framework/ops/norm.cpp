#include "framework/ops/norm.h"

#include <algorithm>
#include <cmath>

#include "framework/autograd/tape.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/norm_cuda.h"
#include "framework/ops/sum_rows_cuda.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 16384;  // elements from which threads pay
// Rows whose weight gradient is summed by one thread: fixed, so that sums do not depend on the
// number of threads.
constexpr std::int64_t kRowBlock = 64;

std::int64_t rows_of(const Tensor& x) { return x.dim(-1) == 0 ? 0 : x.numel() / x.dim(-1); }

// inverse[row] = 1 / rms(x[row]); with b, x is a + b and sum receives it.
template <class T>
void forward(const T* a, const T* b, const T* weight, T eps, std::int64_t rows, std::int64_t width,
             T* sum, T* normed, T* inverse) {
#pragma omp parallel for schedule(static) if (rows * width > kParallel)
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* x = a + r * width;
    T squares = 0;
    if (b != nullptr) {
      const T* y = b + r * width;
      T* s = sum + r * width;
#pragma omp simd reduction(+ : squares)
      for (std::int64_t i = 0; i < width; ++i) {
        const T v = x[i] + y[i];
        s[i] = v;
        squares += v * v;
      }
      x = s;
    } else {
#pragma omp simd reduction(+ : squares)
      for (std::int64_t i = 0; i < width; ++i) squares += x[i] * x[i];
    }
    const T scale = T(1) / std::sqrt(squares / static_cast<T>(width) + eps);
    T* out = normed + r * width;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) out[i] = x[i] * scale * weight[i];
    inverse[r] = scale;
  }
}

// dx = through + inverse · (g·w − x · inverse² · mean(g·w·x)), added to dx when add is set; through
// may be null, dx too. partial [row blocks, width], when not null, receives the weight gradient Σ
// g·x·inverse of each block.
template <class T>
void backward(const T* x, const T* weight, const T* inverse, const T* g, const T* through,
              std::int64_t rows, std::int64_t width, T* dx, bool add, T* partial) {
  const std::int64_t blocks = (rows + kRowBlock - 1) / kRowBlock;
#pragma omp parallel for schedule(static) if (rows * width > kParallel)
  for (std::int64_t block = 0; block < blocks; ++block) {
    T* sums = partial == nullptr ? nullptr : partial + block * width;
    if (sums != nullptr) std::fill_n(sums, width, T(0));
    const std::int64_t end = std::min(rows, (block + 1) * kRowBlock);
    for (std::int64_t r = block * kRowBlock; r < end; ++r) {
      const T* xr = x + r * width;
      const T* gr = g + r * width;
      const T scale = inverse[r];
      T dot = 0;
      if (sums != nullptr) {
#pragma omp simd reduction(+ : dot)
        for (std::int64_t i = 0; i < width; ++i) {
          const T gx = gr[i] * xr[i];
          dot += gx * weight[i];
          sums[i] += gx * scale;
        }
      } else {
#pragma omp simd reduction(+ : dot)
        for (std::int64_t i = 0; i < width; ++i) dot += gr[i] * xr[i] * weight[i];
      }
      if (dx == nullptr) continue;
      T* out = dx + r * width;
      const T along = dot * scale * scale * scale / static_cast<T>(width);
      const T* passed = through == nullptr ? nullptr : through + r * width;
      if (passed != nullptr) {
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i)
          out[i] = passed[i] + scale * gr[i] * weight[i] - along * xr[i];
      } else if (add) {
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i)
          out[i] += scale * gr[i] * weight[i] - along * xr[i];
      } else {
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) out[i] = scale * gr[i] * weight[i] - along * xr[i];
      }
    }
  }
}

template <class T>
void sum_blocks(const T* partial, std::int64_t blocks, std::int64_t width, T* out, bool add) {
  if (!add) std::fill_n(out, width, T(0));
  for (std::int64_t block = 0; block < blocks; ++block) {
    const T* sums = partial + block * width;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) out[i] += sums[i];
  }
}

// What backward keeps of one normalisation.
struct Saved {
  Tensor x, weight, inverse;
};

// Input half into dx (undefined: not wanted); returns the blocks of the weight half, undefined when
// not wanted.
Tensor run_backward(const Saved& saved, const Tensor& g, const Tensor& through, const Tensor& dx,
                    bool add, bool wants_weight) {
  const std::int64_t rows = rows_of(saved.x);
  const std::int64_t width = saved.x.dim(-1);
  Tensor partial;
  dispatch(
      "rms_norm", saved.x,
      [&]<class T>() {
        if (wants_weight) {
          partial = Tensor::empty({(rows + kRowBlock - 1) / kRowBlock, width}, saved.x.dtype());
        }
        const auto pointer = [](const Tensor& t) { return t.defined() ? t.data<T>() : nullptr; };
        backward<T>(saved.x.data<T>(), saved.weight.data<T>(), saved.inverse.data<T>(), g.data<T>(),
                    pointer(through), rows, width, pointer(dx), add, pointer(partial));
      },
      [&] {
        partial = cuda::rms_norm_backward(saved.x, saved.weight, saved.inverse, g, through, dx, add,
                                          wants_weight);
      });
  return partial;
}

void finish_weight(Backward& b, std::size_t input, const Tensor& partial) {
  b.weight_gradient(input, [partial](GradSlot& slot) {
    const auto [out, add] = slot.target({partial.dim(1)}, partial.dtype(), partial.device());
    dispatch(
        "rms_norm", partial,
        [&]<class T>() {
          sum_blocks<T>(partial.data<T>(), partial.dim(0), partial.dim(1), out.data<T>(), add);
        },
        [&] { cuda::sum_rows(partial, out, add); });
  });
}

void check_arguments(const char* op, const Tensor& x, const Tensor& weight, double eps) {
  FULCRUM_REQUIRE(
      x.rank() >= 1 && weight.rank() == 1 && x.dim(-1) == weight.dim(0) && suits(weight, x),
      "{}: needs x [..., width] and weight [width] of one dtype; got {} {} and {} {}", op,
      x.dtype(), x.shape(), weight.dtype(), weight.shape());
  FULCRUM_REQUIRE(eps >= 0.0, "{}: eps must not be negative; got {}", op, eps);
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  check_arguments("rms_norm", x, weight, eps);
  Tensor y = Tensor::empty_like(x);
  const Tensor inverse = Tensor::empty({rows_of(x)}, accumulation_dtype(x.dtype()), x.device());
  dispatch(
      "rms_norm", x,
      [&]<class T>() {
        forward<T>(x.data<T>(), nullptr, weight.data<T>(), static_cast<T>(eps), rows_of(x),
                   x.dim(-1), nullptr, y.data<T>(), inverse.data<T>());
      },
      [&] { cuda::rms_norm(x, {}, weight, eps, {}, y, inverse); });
  if (Tape* tape = Tape::recording({x, weight})) {
    tape->record("rms_norm", {x, weight}, {&y},
                 [saved = Saved{x.detach(), weight.detach(), inverse}](Backward& b) {
                   GradSlot::Target dx{};
                   if (b.needs(0)) dx = b.target(0);
                   const Tensor partial =
                       run_backward(saved, b.grad(0), {}, dx.tensor, dx.add, b.needs(1));
                   if (b.needs(1)) finish_weight(b, 1, partial);
                 });
  }
  return y;
}

NormedSum add_rms_norm(const Tensor& a, const Tensor& b, const Tensor& weight, double eps) {
  FULCRUM_REQUIRE(a.shape() == b.shape() && a.dtype() == b.dtype(),
                  "add_rms_norm: the summands must agree; got {} {} and {} {}", a.dtype(),
                  a.shape(), b.dtype(), b.shape());
  check_arguments("add_rms_norm", a, weight, eps);
  NormedSum y{Tensor::empty_like(a), Tensor::empty_like(a)};
  const Tensor inverse = Tensor::empty({rows_of(a)}, accumulation_dtype(a.dtype()), a.device());
  dispatch(
      "add_rms_norm", a,
      [&]<class T>() {
        forward<T>(a.data<T>(), b.data<T>(), weight.data<T>(), static_cast<T>(eps), rows_of(a),
                   a.dim(-1), y.sum.data<T>(), y.normed.data<T>(), inverse.data<T>());
      },
      [&] { cuda::rms_norm(a, b, weight, eps, y.sum, y.normed, inverse); });
  if (Tape* tape = Tape::recording({a, b, weight})) {
    const Saved saved{y.sum.detach(), weight.detach(), inverse};
    tape->record("add_rms_norm", {a, b, weight}, {&y.sum, &y.normed}, [saved](Backward& back) {
      const Tensor through = back.grad(0);
      const Tensor g = back.grad(1);
      Tensor d = through;
      if (g.defined()) {
        const bool wants_input = back.needs(0) || back.needs(1);
        d = wants_input ? Tensor::empty_like(g) : Tensor();
        const Tensor partial = run_backward(saved, g, through, d, false, back.needs(2));
        if (back.needs(2)) finish_weight(back, 2, partial);
      }
      if (!d.defined()) return;
      back.accumulate(0, d);
      back.accumulate(1, d);
    });
  }
  return y;
}

}  // namespace fulcrum::ops
