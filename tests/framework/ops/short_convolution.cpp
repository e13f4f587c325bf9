#include "framework/ops/short_convolution.h"

#include <cmath>

#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;
using fulcrum::testing::relative_error;

namespace {

// The formula of the header; norm_weight undefined: without norm, activation and residual.
Tensor reference(const Tensor& x, const Tensor& norm_weight, const Tensor& weight,
                 std::int64_t dilation, double eps, const Tensor& start) {
  const std::int64_t seq = x.dim(1), d = x.dim(2), kernel = weight.dim(1);
  const Tensor y = Tensor::empty_like(x);
  const double* in = x.data<double>();
  const auto normed = [&](std::int64_t p, std::int64_t c) {
    if (!norm_weight.defined()) return in[p * d + c];
    double square = 0;
    for (std::int64_t i = 0; i < d; ++i) square += in[p * d + i] * in[p * d + i];
    return in[p * d + c] / std::sqrt(square / d + eps) * norm_weight.data<double>()[c];
  };
  for (std::int64_t p = 0; p < x.dim(0) * seq; ++p) {
    const std::int64_t first = start.defined() ? start.data<std::int32_t>()[p] : 0;
    for (std::int64_t c = 0; c < d; ++c) {
      double z = 0;
      for (std::int64_t j = 0; j < kernel; ++j) {
        const std::int64_t back = (kernel - 1 - j) * dilation;
        if (p % seq - back >= first)
          z += weight.data<double>()[c * kernel + j] * normed(p - back, c);
      }
      y.data<double>()[p * d + c] =
          norm_weight.defined() ? z / (1 + std::exp(-z)) + in[p * d + c] : z;
    }
  }
  return y;
}

// Documents of `length` positions.
Tensor documents(std::int64_t batch, std::int64_t seq, std::int64_t length) {
  std::vector<std::int32_t> start;
  for (std::int64_t i = 0; i < batch * seq; ++i)
    start.push_back(static_cast<std::int32_t>(i % seq / length * length));
  return Tensor::from(start, {batch, seq});
}

}  // namespace

TEST_CASE("convolutions follow their formula", "[unit][ops]") {
  const Tensor x = random({3, 23, 7}, 1);
  const Tensor norm = random({7}, 2);
  for (const Tensor& start : {Tensor(), documents(3, 23, 5), documents(3, 23, 1)}) {
    for (const std::int64_t dilation : {1, 3, 9}) {
      for (const std::int64_t kernel : {1, 3, 4, 6, 9}) {
        const Tensor weight = random({7, kernel}, 3);
        const Tensor fused = ops::short_convolution(x, norm, weight, dilation, 1e-3, start);
        CHECK(relative_error(fused, reference(x, norm, weight, dilation, 1e-3, start)) < 1e-13);
        CHECK(relative_error(ops::causal_convolution(x, weight, dilation, start),
                             reference(x, {}, weight, dilation, 0, start)) < 1e-13);
        const Tensor single = ops::short_convolution(x.to(DType::f32), norm.to(DType::f32),
                                                     weight.to(DType::f32), dilation, 1e-3, start);
        CHECK(relative_error(single, fused) < 1e-5);
      }
    }
  }
}

TEST_CASE("convolution gradients", "[unit][ops]") {
  for (const Tensor& start : {Tensor(), documents(2, 11, 4)}) {
    CHECK(
        gradient_error(
            [&](const auto& x) { return ops::short_convolution(x[0], x[1], x[2], 3, 1e-2, start); },
            {random({2, 11, 3}, 1), random({3}, 2), random({3, 4}, 3)}) < 1e-6);
    CHECK(
        gradient_error([&](const auto& x) { return ops::causal_convolution(x[0], x[1], 2, start); },
                       {random({2, 11, 3}, 1), random({3, 4}, 3)}) < 1e-7);
  }
  // Several blocks of positions, and blocks that cross from one sequence into the next.
  CHECK(gradient_error(
            [](const auto& x) { return ops::short_convolution(x[0], x[1], x[2], 3, 1e-2); },
            {random({3, 49, 2}, 1), random({2}, 2), random({2, 4}, 3)}) < 1e-6);
  // More taps than one pass takes.
  CHECK(gradient_error(
            [](const auto& x) { return ops::short_convolution(x[0], x[1], x[2], 2, 1e-2); },
            {random({1, 21, 2}, 1), random({2}, 2), random({2, 7}, 3)}) < 1e-6);
  // Zero weights: the norm gets no gradient, the weights do.
  CHECK(gradient_error(
            [](const auto& x) { return ops::short_convolution(x[0], x[1], x[2], 1, 1e-2); },
            {random({1, 6, 3}, 1), random({3}, 2), Tensor::zeros({3, 2}, DType::f64)}) < 1e-6);
}

TEST_CASE("a convolution used twice adds its gradients", "[unit][ops]") {
  CHECK(gradient_error(
            [](const auto& x) {
              return ops::add(ops::short_convolution(x[0], x[1], x[2], 1, 1e-2),
                              ops::causal_convolution(x[0], x[2], 2));
            },
            {random({2, 5, 3}, 1), random({3}, 2), random({3, 2}, 3)}) < 1e-6);
}

TEST_CASE("zero weights leave the input as it is", "[unit][ops]") {
  const Tensor x = random({2, 9, 5}, 1);
  const Tensor y =
      ops::short_convolution(x, random({5}, 2), Tensor::zeros({5, 4}, DType::f64), 3, 1e-5);
  CHECK(y.to_vector<double>() == x.to_vector<double>());
}

TEST_CASE("convolutions of nothing, and wrong arguments", "[unit][ops]") {
  const Tensor weight = random({5, 4}, 1);
  CHECK(ops::causal_convolution(random({0, 3, 5}, 1), weight, 1).shape() == Shape{0, 3, 5});
  CHECK(ops::short_convolution(random({2, 0, 5}, 1), random({5}, 1), weight, 1, 1e-5).shape() ==
        Shape{2, 0, 5});
  const Tensor x = random({2, 3, 5}, 1);
  CHECK_THROWS_AS(ops::causal_convolution(x.reshape({6, 5}), weight, 1), ArgumentError);
  CHECK_THROWS_AS(ops::causal_convolution(x, random({4, 4}, 1), 1), ArgumentError);
  CHECK_THROWS_AS(ops::causal_convolution(x, weight, 0), ArgumentError);
  CHECK_THROWS_AS(ops::causal_convolution(x, weight.to(DType::f32), 1), ArgumentError);
  CHECK_THROWS_AS(ops::causal_convolution(x, weight, 1, Tensor::zeros({3, 2}, DType::i32)),
                  ArgumentError);
  CHECK_THROWS_AS(ops::short_convolution(x, random({4}, 1), weight, 1, 1e-5), ArgumentError);
}
