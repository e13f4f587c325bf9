#include "framework/ops/swiglu.h"

#include <cmath>

#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;
using fulcrum::testing::relative_error;

TEST_CASE("swiglu equals its definition", "[unit][ops]") {
  const Tensor x = random({3, 14}, 1, 3.0);
  const Tensor y = swiglu(x);
  REQUIRE(y.shape() == Shape({3, 7}));
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 7; ++i) {
      const double gate = x.data<double>()[r * 14 + i];
      const double up = x.data<double>()[r * 14 + 7 + i];
      CHECK(y.data<double>()[r * 7 + i] == Approx(gate / (1.0 + std::exp(-gate)) * up));
    }
  }
  CHECK(relative_error(swiglu(x.to(DType::f32)), y) < 1e-6);
}

TEST_CASE("swiglu gradients", "[unit][ops]") {
  const auto f = [](const auto& x) { return swiglu(x[0]); };
  CHECK(gradient_error(f, {random({3, 14}, 1, 2.0)}) < 1e-8);
  CHECK(gradient_error(f, {random({1, 2}, 1)}) < 1e-8);
  CHECK(gradient_error(f, {random({0, 4}, 1)}) < 1e-8);
  CHECK(gradient_error([](const auto& x) { return add(swiglu(x[0]), swiglu(x[0])); },
                       {random({3, 4}, 1)}) < 1e-8);
}

TEST_CASE("weighted swiglu weighs the rows of slots", "[unit][ops]") {
  // Token 1 lost a slot.
  const Permutation p =
      make_permutation(Tensor::from<std::int32_t>({2, 0, -1, 0, 1, 2}, {3, 2}), 3);
  REQUIRE(p.rows() == 5);
  const Tensor x = random({5, 6}, 1);
  const Tensor w = random({3, 2}, 2);
  const Tensor plain = swiglu(x);
  const Tensor y = weighted_swiglu(x, w, p);
  for (std::int64_t r = 0; r < 5; ++r) {
    const double weight = w.data<double>()[p.source.data<std::int64_t>()[r]];
    for (std::int64_t i = 0; i < 3; ++i) {
      CHECK(y.data<double>()[r * 3 + i] == Approx(weight * plain.data<double>()[r * 3 + i]));
    }
  }
  const auto f = [&](const auto& in) { return weighted_swiglu(in[0], in[1], p); };
  CHECK(gradient_error(f, {x, w}) < 1e-8);
  // alone, and added to what is there
  CHECK(gradient_error([&](const auto& in) { return weighted_swiglu(x, in[0], p); }, {w}) < 1e-8);
  CHECK(gradient_error([&](const auto& in) { return add(f(in), f(in)); }, {x, w}) < 1e-8);
  const Permutation none = make_permutation(Tensor::full({2, 1}, -1, DType::i32), 3);
  CHECK(gradient_error([&](const auto& in) { return weighted_swiglu(in[0], in[1], none); },
                       {random({0, 6}, 1), random({2, 1}, 2)}) < 1e-8);
}

TEST_CASE("swiglu refuses what does not fit", "[unit][ops]") {
  CHECK_THROWS_AS(swiglu(random({3, 5}, 1)), ArgumentError);
  CHECK_THROWS_AS(swiglu(random({4}, 1)), ArgumentError);
  CHECK_THROWS_AS(swiglu(Tensor::zeros({2, 4}, DType::i32)), ArgumentError);
  const Permutation p = make_permutation(Tensor::from<std::int32_t>({1, 0}, {2, 1}), 2);
  CHECK_THROWS_AS(weighted_swiglu(random({3, 4}, 1), random({2, 1}, 2), p), ArgumentError);
  CHECK_THROWS_AS(weighted_swiglu(random({2, 4}, 1), random({1, 2}, 2), p), ArgumentError);
  CHECK_THROWS_AS(weighted_swiglu(random({2, 4}, 1), random({2, 1}, 2).to(DType::f32), p),
                  ArgumentError);
  CHECK_THROWS_AS(weighted_swiglu(random({2, 4}, 1), random({2, 1}, 2), {}), ArgumentError);
}
