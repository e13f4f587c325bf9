#include "framework/ops/short_convolution.h"

#include <cmath>

#include "framework/autograd/tape.h"
#include "framework/ops/document.h"
#include "framework/ops/short_convolution_kernel.h"

namespace fulcrum::ops {
namespace {

using convolution::Problem;

// total[j, i] = Σ over blocks in order.
template <class T>
Tensor sum_blocks(const Problem<T>& c, const T* sums) {
  const Tensor total = Tensor::zeros({c.kernel, c.d}, dtype_of<T>);
  const std::int64_t n = c.kernel * c.d;
  for (std::int64_t block = 0; block < c.blocks(); ++block) {
    const T* sum = sums + block * n;
    T* t = total.data<T>();
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) t[i] += sum[i];
  }
  return total;
}

template <class T>
Tensor scales_of(const Tensor& x, double eps) {
  const std::int64_t d = x.dim(2);
  const std::int64_t n = x.dim(0) * x.dim(1);
  const Tensor scales = Tensor::empty({n}, x.dtype());
  T* scale = scales.data<T>();
  const T* in = x.data<T>();
#pragma omp parallel for schedule(static) if (n * d > convolution::kParallel)
  for (std::int64_t p = 0; p < n; ++p) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < d; ++i) sum += in[p * d + i] * in[p * d + i];
    scale[p] = T{1} / std::sqrt(sum / d + static_cast<T>(eps));
  }
  return scales;
}

// weight [d, kernel] transposed to [kernel, d], each channel times norm_weight when that is given.
template <class T>
Tensor taps_of(const Tensor& weight, const Tensor& norm_weight) {
  const std::int64_t d = weight.dim(0);
  const std::int64_t kernel = weight.dim(1);
  const Tensor taps = Tensor::empty({kernel, d}, weight.dtype());
  for (std::int64_t i = 0; i < d; ++i) {
    const T scale = norm_weight.defined() ? norm_weight.data<T>()[i] : T{1};
    for (std::int64_t j = 0; j < kernel; ++j) {
      taps.data<T>()[j * d + i] = scale * weight.data<T>()[i * kernel + j];
    }
  }
  return taps;
}

// Inputs as the tape holds them, without their gradients.
struct Inputs {
  Tensor x, norm_weight, weight, start, scales;
  std::int64_t dilation;

  template <class T>
  Problem<T> problem(const Tensor& taps) const {
    return {x.dim(0),
            x.dim(1),
            x.dim(2),
            weight.dim(1),
            dilation,
            x.data<T>(),
            taps.data<T>(),
            scales.defined() ? scales.data<T>() : nullptr,
            start.defined() ? start.data<std::int32_t>() : nullptr};
  }
};

// Gradients of weight [d, kernel] and, when fused, of the norm's weight [d], from the sums of
// backward_taps.
template <class T>
void weight_gradients(const Inputs& in, const Tensor& total, Backward& b, std::size_t weight_input,
                      std::size_t norm_input) {
  const std::int64_t d = in.weight.dim(0);
  const std::int64_t kernel = in.weight.dim(1);
  const bool fused = in.norm_weight.defined();
  const T* sum = total.data<T>();
  const T* weight = in.weight.data<T>();
  if (b.needs(weight_input)) {
    const Tensor gradient = Tensor::empty_like(in.weight);
    for (std::int64_t i = 0; i < d; ++i) {
      const T scale = fused ? in.norm_weight.data<T>()[i] : T{1};
      for (std::int64_t j = 0; j < kernel; ++j)
        gradient.data<T>()[i * kernel + j] = scale * sum[j * d + i];
    }
    b.accumulate(weight_input, gradient);
  }
  if (fused && b.needs(norm_input)) {
    const Tensor gradient = Tensor::zeros({d}, in.weight.dtype());
    for (std::int64_t i = 0; i < d; ++i) {
      for (std::int64_t j = 0; j < kernel; ++j) {
        gradient.data<T>()[i] += weight[i * kernel + j] * sum[j * d + i];
      }
    }
    b.accumulate(norm_input, gradient);
  }
}

// Input 0 is x; the others as named.
template <class T>
void backward(const Inputs& in, Backward& b, std::size_t weight_input, std::size_t norm_input) {
  const bool fused = in.norm_weight.defined();
  const Tensor taps = taps_of<T>(in.weight, in.norm_weight);
  const Problem<T> c = in.problem<T>(taps);
  const Tensor gradient = b.grad(0);
  const Tensor dz = Tensor::empty(in.x.shape(), in.x.dtype());
  const Tensor sums = Tensor::empty({c.blocks(), c.kernel, c.d}, in.x.dtype());
  convolution::backward_taps(c, gradient.data<T>(), fused, dz.data<T>(), sums.data<T>());
  if (b.needs(0)) {
    const GradSlot::Target target = b.target(0);
    convolution::backward_input(c, gradient.data<T>(), fused, dz.data<T>(), target.tensor.data<T>(),
                                target.add);
  }
  weight_gradients<T>(in, sum_blocks(c, sums.data<T>()), b, weight_input, norm_input);
}

void check(const char* op, const Tensor& x, const Tensor& weight, std::int64_t dilation,
           const Tensor& document_start) {
  FULCRUM_REQUIRE(x.rank() == 3 && x.dim(2) > 0, "{}: x must be [batch, seq, d]; got {}", op,
                  x.shape());
  FULCRUM_REQUIRE(weight.rank() == 2 && weight.dim(0) == x.dim(2) && weight.dim(1) >= 1,
                  "{}: weight must be [{}, kernel]; got {}", op, x.dim(2), weight.shape());
  FULCRUM_REQUIRE(weight.dtype() == x.dtype(), "{}: dtypes must agree; got {} and {}", op,
                  x.dtype(), weight.dtype());
  FULCRUM_REQUIRE(dilation >= 1, "{}: the dilation must be at least 1; got {}", op, dilation);
  checked_document_start(op, document_start, x.dim(0), x.dim(1));
}

Tensor run(const char* op, const Inputs& in) {
  Tensor y = Tensor::empty(in.x.shape(), in.x.dtype());
  dispatch_floating(op, in.x.dtype(), [&]<class T>() {
    const Tensor taps = taps_of<T>(in.weight, in.norm_weight);
    convolution::forward(in.problem<T>(taps), in.norm_weight.defined(), y.data<T>());
  });
  return y;
}

}  // namespace

Tensor causal_convolution(const Tensor& x, const Tensor& weight, std::int64_t dilation,
                          const Tensor& document_start) {
  check("causal_convolution", x, weight, dilation, document_start);
  const Inputs in{x.detach(), {}, weight.detach(), document_start, {}, dilation};
  Tensor y = run("causal_convolution", in);
  if (Tape* tape = Tape::recording({x, weight})) {
    tape->record("causal_convolution", {x, weight}, {&y}, [in](Backward& b) {
      dispatch_floating("causal_convolution", in.x.dtype(),
                        [&]<class T>() { backward<T>(in, b, 1, 1); });
    });
  }
  return y;
}

Tensor short_convolution(const Tensor& x, const Tensor& norm_weight, const Tensor& weight,
                         std::int64_t dilation, double eps, const Tensor& document_start) {
  check("short_convolution", x, weight, dilation, document_start);
  FULCRUM_REQUIRE(norm_weight.shape() == Shape{x.dim(2)} && norm_weight.dtype() == x.dtype(),
                  "short_convolution: norm_weight must be {} [{}]; got {} {}", x.dtype(), x.dim(2),
                  norm_weight.dtype(), norm_weight.shape());
  Inputs in{x.detach(), norm_weight.detach(), weight.detach(), document_start, {}, dilation};
  dispatch_floating("short_convolution", x.dtype(),
                    [&]<class T>() { in.scales = scales_of<T>(x, eps); });
  Tensor y = run("short_convolution", in);
  if (Tape* tape = Tape::recording({x, norm_weight, weight})) {
    tape->record("short_convolution", {x, norm_weight, weight}, {&y}, [in](Backward& b) {
      dispatch_floating("short_convolution", in.x.dtype(),
                        [&]<class T>() { backward<T>(in, b, 2, 1); });
    });
  }
  return y;
}

}  // namespace fulcrum::ops
