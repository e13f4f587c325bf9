#include "framework/ops/elementwise.h"

#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;

TEST_CASE("elementwise gradients", "[unit][ops]") {
  CHECK(gradient_error([](const auto& x) { return ops::add(x[0], x[1]); },
                       {random({3, 5}, 1), random({3, 5}, 2)}) < 1e-8);
  CHECK(gradient_error([](const auto& x) { return ops::add(x[0], x[0]); }, {random({7}, 1)}) <
        1e-8);
  CHECK(gradient_error([](const auto& x) { return ops::add_bias(x[0], x[1]); },
                       {random({2, 3, 5}, 1), random({5}, 2)}) < 1e-8);
  CHECK(gradient_error([](const auto& x) { return ops::scale(x[0], -2.5); }, {random({7}, 1)}) <
        1e-8);
  CHECK(gradient_error([](const auto& x) { return ops::sum(x[0]); }, {random({4, 3}, 1)}) < 1e-8);
}

TEST_CASE("elementwise refuses shapes that differ", "[unit][ops]") {
  CHECK_THROWS_AS(ops::add_bias(random({3, 2}, 1), random({3}, 1)), ArgumentError);
  CHECK_THROWS_AS(ops::add(random({3}, 1), random({4}, 1)), ArgumentError);
}
