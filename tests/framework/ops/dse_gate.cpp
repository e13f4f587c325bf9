#include "framework/ops/dse_gate.h"

#include <cmath>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;
using fulcrum::testing::relative_error;

namespace {

std::vector<Tensor> inputs(std::int64_t n, std::int64_t d) {
  return {random({n, d}, 1), random({n, d}, 2), random({n, d}, 3), random({d}, 4), random({d}, 5)};
}

double gate_reference(const std::vector<Tensor>& x, std::int64_t t, double eps, bool signed_sqrt) {
  const std::int64_t d = x[0].dim(1);
  const double* h = x[0].data<double>() + t * d;
  const double* k = x[1].data<double>() + t * d;
  double hh = 0, kk = 0, hk = 0;
  for (std::int64_t i = 0; i < d; ++i) hh += h[i] * h[i], kk += k[i] * k[i];
  for (std::int64_t i = 0; i < d; ++i) {
    hk += h[i] / std::sqrt(hh / d + eps) * x[3].data<double>()[i] * k[i] / std::sqrt(kk / d + eps) *
          x[4].data<double>()[i];
  }
  double s = hk / std::sqrt(static_cast<double>(d));
  if (signed_sqrt) s = std::copysign(std::sqrt(std::max(std::abs(s), 1e-6)), s);
  return 1 / (1 + std::exp(-s));
}

Tensor gated(const std::vector<Tensor>& x, bool signed_sqrt, double eps = 1e-5) {
  return ops::dse_gate(x[0], x[1], x[2], x[3], x[4], eps, signed_sqrt).value;
}

}  // namespace

TEST_CASE("the gate follows its formula", "[unit][ops]") {
  for (const bool signed_sqrt : {false, true}) {
    const auto x = inputs(70, 13);
    const ops::GatedValue y = ops::dse_gate(x[0], x[1], x[2], x[3], x[4], 1e-3, signed_sqrt);
    CHECK_FALSE(y.gate.requires_grad());
    double worst = 0;
    for (std::int64_t t = 0; t < 70; ++t) {
      const double alpha = gate_reference(x, t, 1e-3, signed_sqrt);
      worst = std::max(worst, std::abs(alpha - y.gate.data<double>()[t]));
      for (std::int64_t i = 0; i < 13; ++i) {
        worst = std::max(worst, std::abs(alpha * x[2].data<double>()[t * 13 + i] -
                                         y.value.data<double>()[t * 13 + i]));
      }
    }
    CHECK(worst < 1e-13);
    std::vector<Tensor> single;
    for (const Tensor& t : x) single.push_back(t.to(DType::f32));
    CHECK(relative_error(gated(single, signed_sqrt, 1e-3), y.value) < 1e-5);
  }
}

TEST_CASE("gate gradients", "[unit][ops]") {
  for (const bool signed_sqrt : {false, true}) {
    const auto f = [=](const std::vector<Tensor>& x) { return gated(x, signed_sqrt); };
    CHECK(gradient_error(f, inputs(5, 7)) < 1e-6);
    CHECK(gradient_error(f, inputs(131, 3), 1e-6) < 1e-6);  // several blocks of tokens
    CHECK(gradient_error(f, inputs(2, 1)) < 1e-6);
  }
}

TEST_CASE("gate gradients add to what is there", "[unit][ops]") {
  const auto f = [](const std::vector<Tensor>& x) {
    return ops::add(gated(x, true), gated({x[1], x[0], x[2], x[4], x[3]}, false));
  };
  CHECK(gradient_error(f, inputs(4, 6)) < 1e-6);
  const auto same = [](const std::vector<Tensor>& x) {
    return gated({x[0], x[0], x[0], x[1], x[1]}, false);
  };
  CHECK(gradient_error(same, {random({5, 6}, 1), random({6}, 4)}) < 1e-6);
}

TEST_CASE("only some inputs want a gradient", "[unit][ops]") {
  auto x = inputs(3, 4);
  x[1] = make_leaf(x[1]);
  x[4] = make_leaf(x[4]);
  Tape tape;
  Tensor y;
  {
    Tape::Scope recording(tape);
    y = ops::sum(gated(x, true));
  }
  tape.backward(y);
  CHECK(x[1].grad().defined());
  CHECK(x[4].grad().defined());
}

TEST_CASE("a score of zero gives one half and no gradient through the root", "[unit][ops]") {
  auto x = inputs(1, 4);
  x[1].zero();
  x[1] = make_leaf(x[1]);
  Tape tape;
  ops::GatedValue y;
  Tensor loss;
  {
    Tape::Scope recording(tape);
    y = ops::dse_gate(x[0], x[1], x[2], x[3], x[4], 1e-5, true);
    loss = ops::sum(y.value);
  }
  CHECK(y.gate.data<double>()[0] == 0.5);
  tape.backward(loss);
  for (const double g : x[1].grad().to_vector<double>()) CHECK(g == 0.0);
}

TEST_CASE("gate of no tokens, and wrong arguments", "[unit][ops]") {
  CHECK(gated(inputs(0, 5), true).shape() == Shape{0, 5});
  auto x = inputs(3, 4);
  x[1] = random({3, 5}, 1);
  CHECK_THROWS_AS(gated(x, true), ArgumentError);
  x = inputs(3, 4);
  x[4] = random({3}, 1);
  CHECK_THROWS_AS(gated(x, true), ArgumentError);
  x = inputs(3, 4);
  x[2] = x[2].to(DType::f32);
  CHECK_THROWS_AS(gated(x, true), ArgumentError);
}
