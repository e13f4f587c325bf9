#include "framework/ops/short_convolution.h"

#include <cmath>

#include "framework/autograd/tape.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/document.h"
#include "framework/ops/short_convolution_cuda.h"
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

// 1 / √(mean(x²) + eps) of every row.
template <class T>
void find_scales(const Tensor& x, const Tensor& square_means, double eps, const Tensor& scales) {
  const std::int64_t d = x.dim(2);
  const std::int64_t n = x.dim(0) * x.dim(1);
  T* scale = scales.data<T>();
  const T* in = x.data<T>();
  const T* known = square_means.defined() ? square_means.data<T>() : nullptr;
#pragma omp parallel for schedule(static) if (n * d > convolution::kParallel)
  for (std::int64_t p = 0; p < n; ++p) {
    T mean = 0;
    if (known != nullptr) {
      mean = known[p];
    } else {
#pragma omp simd reduction(+ : mean)
      for (std::int64_t i = 0; i < d; ++i) mean += in[p * d + i] * in[p * d + i];
      mean /= static_cast<T>(d);
    }
    scale[p] = T{1} / std::sqrt(mean + static_cast<T>(eps));
  }
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

using Inputs = ConvolutionInputs;

template <class T>
Problem<T> problem_of(const Inputs& in, const Tensor& taps) {
  return {in.x.dim(0),
          in.x.dim(1),
          in.x.dim(2),
          in.weight.dim(1),
          in.dilation,
          in.x.data<T>(),
          taps.data<T>(),
          in.scales.defined() ? in.scales.data<T>() : nullptr,
          in.start.defined() ? in.start.data<std::int32_t>() : nullptr};
}

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
  const Problem<T> c = problem_of<T>(in, taps);
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
  FULCRUM_REQUIRE(suits(weight, x), "{}: dtypes must agree; got {} and {}", op, x.dtype(),
                  weight.dtype());
  FULCRUM_REQUIRE(dilation >= 1, "{}: the dilation must be at least 1; got {}", op, dilation);
  checked_document_start(op, document_start, x.dim(0), x.dim(1));
}

void backward_cuda(const Inputs& in, Backward& b, std::size_t weight_input,
                   std::size_t norm_input) {
  const GradSlot::Target dx = b.needs(0) ? b.target(0) : GradSlot::Target{};
  const Tensor parts = cuda::convolution_backward(in, b.grad(0), dx.tensor, dx.add);
  const auto target = [](GradSlot& slot, const Tensor& like) {
    return slot.target(like.shape(), like.dtype(), like.device());
  };
  // One launch forms both where both are wanted.
  const bool both = in.fused() && b.needs(weight_input) && b.needs(norm_input);
  const Tensor d_norm = both ? Tensor::empty_like(in.norm_weight) : Tensor();
  b.weight_gradient(weight_input, [=](GradSlot& slot) {
    cuda::convolution_weights(in, parts, target(slot, in.weight), {d_norm, false});
  });
  if (!in.fused()) return;
  b.weight_gradient(norm_input, [=](GradSlot& slot) {
    if (both) {
      slot.accumulate(d_norm);
    } else {
      cuda::convolution_weights(in, parts, {}, target(slot, in.norm_weight));
    }
  });
}

Tensor run(const char* op, const Inputs& in) {
  Tensor y = Tensor::empty_like(in.x);
  dispatch(
      op, in.x,
      [&]<class T>() {
        const Tensor taps = taps_of<T>(in.weight, in.norm_weight);
        convolution::forward(problem_of<T>(in, taps), in.fused(), y.data<T>());
      },
      [&] { cuda::convolution(in, y); });
  return y;
}

void record(const char* op, const std::vector<Tensor>& inputs, std::size_t weight_input,
            std::size_t norm_input, const Inputs& in, Tensor& y) {
  Tape* tape = Tape::recording(inputs);
  if (tape == nullptr) return;
  tape->record(op, inputs, {&y}, [op, in, weight_input, norm_input](Backward& b) {
    dispatch(
        op, in.x, [&]<class T>() { backward<T>(in, b, weight_input, norm_input); },
        [&] { backward_cuda(in, b, weight_input, norm_input); });
  });
}

}  // namespace

Tensor causal_convolution(const Tensor& x, const Tensor& weight, std::int64_t dilation,
                          const Tensor& document_start) {
  check("causal_convolution", x, weight, dilation, document_start);
  const Inputs in{x.detach(), {}, weight.detach(), document_start, {}, dilation};
  Tensor y = run("causal_convolution", in);
  record("causal_convolution", {x, weight}, 1, 1, in, y);
  return y;
}

Tensor short_convolution(const Tensor& x, const Tensor& norm_weight, const Tensor& weight,
                         std::int64_t dilation, double eps, const Tensor& document_start,
                         const Tensor& square_means) {
  check("short_convolution", x, weight, dilation, document_start);
  FULCRUM_REQUIRE(norm_weight.shape() == Shape{x.dim(2)} && suits(norm_weight, x),
                  "short_convolution: norm_weight must suit {} [{}]; got {} {}", x.dtype(),
                  x.dim(2), norm_weight.dtype(), norm_weight.shape());
  const DType statistic = accumulation_dtype(x.dtype());
  const std::int64_t n = x.dim(0) * x.dim(1);
  FULCRUM_REQUIRE(
      !square_means.defined() || (square_means.numel() == n && square_means.dtype() == statistic),
      "short_convolution: square_means must be {} [{}]; got {} {}", statistic, n,
      square_means.dtype(), square_means.shape());
  Inputs in{x.detach(), norm_weight.detach(), weight.detach(), document_start, {}, dilation};
  if (x.device().is_cuda() && square_means.defined()) {
    in.square_means = square_means.detach();
    in.eps = eps;
  } else {
    in.scales = Tensor::empty({n}, statistic, x.device());
    dispatch(
        "short_convolution", x, [&]<class T>() { find_scales<T>(x, square_means, eps, in.scales); },
        [&] { cuda::row_scales(x, eps, in.scales); });
  }
  Tensor y = run("short_convolution", in);
  record("short_convolution", {x, norm_weight, weight}, 2, 1, in, y);
  return y;
}

}  // namespace fulcrum::ops
