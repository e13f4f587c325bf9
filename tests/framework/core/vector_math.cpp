#include "framework/core/vector_math.h"

#include <algorithm>
#include <vector>

#include "tests/catch.h"

using namespace fulcrum;

namespace {

// Largest relative error of f against the double reference over an even grid; through arrays, as
// operators use it.
template <class F, class Reference>
double worst_error(double low, double high, F f, Reference reference) {
  constexpr int kPoints = 400000;
  std::vector<float> x(kPoints), y(kPoints);
  for (int i = 0; i < kPoints; ++i)
    x[i] = static_cast<float>(low + (high - low) * i / (kPoints - 1));
#pragma omp simd
  for (int i = 0; i < kPoints; ++i) y[i] = f(x[i]);
  double worst = 0.0;
  for (int i = 0; i < kPoints; ++i) {
    const double exact = reference(static_cast<double>(x[i]));
    const double error = std::abs(y[i] - exact) / std::max(std::abs(exact), 1e-300);
    if (!(error <= worst)) worst = std::isnan(error) ? 1e300 : error;
  }
  return worst;
}

}  // namespace

TEST_CASE("fast_exp is within 2e-7 over the whole range", "[unit][core]") {
  const auto f = [](float x) { return fast_exp(x); };
  const auto exact = [](double x) { return std::exp(x); };
  CHECK(worst_error(-87.3365, 88.7228, f, exact) < 2e-7);
  CHECK(worst_error(-1.0, 1.0, f, exact) < 2e-7);
  CHECK(worst_error(-1e-6, 1e-6, f, exact) < 2e-7);
}

TEST_CASE("fast_exp at and beyond the limits", "[unit][core]") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  CHECK(fast_exp(0.0f) == 1.0f);
  CHECK(fast_exp(-0.0f) == 1.0f);
  CHECK(fast_exp(-kInfinity) == 0.0f);
  CHECK(fast_exp(-1e30f) == 0.0f);
  CHECK(fast_exp(-87.34f) == 0.0f);
  CHECK(fast_exp(-87.33f) > 0.0f);
  CHECK(std::isfinite(fast_exp(88.722f)));
  CHECK(fast_exp(88.73f) == kInfinity);
  CHECK(fast_exp(1e30f) == kInfinity);
  CHECK(fast_exp(kInfinity) == kInfinity);
  CHECK(std::isnan(fast_exp(std::numeric_limits<float>::quiet_NaN())));
  CHECK(std::isnan(fast_exp(std::bit_cast<float>(0xffc001ffu))));  // a payload in the low bits
  CHECK(fast_exp(1.5) == std::exp(1.5));
}

TEST_CASE("fast_sigmoid and fast_silu", "[unit][core]") {
  const auto sigmoid = [](double x) { return 1.0 / (1.0 + std::exp(-x)); };
  CHECK(worst_error(
            -80.0, 80.0, [](float x) { return fast_sigmoid(x); }, sigmoid) < 4e-7);
  CHECK(worst_error(
            -80.0, 80.0, [](float x) { return fast_silu(x); },
            [&](double x) { return x * sigmoid(x); }) < 4e-7);
  CHECK(fast_sigmoid(-200.0f) == 0.0f);
  CHECK(fast_sigmoid(200.0f) == 1.0f);
  CHECK(std::isnan(fast_sigmoid(std::numeric_limits<float>::quiet_NaN())));
  CHECK(fast_silu(200.0f) == 200.0f);
}
