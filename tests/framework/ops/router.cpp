#include "framework/ops/router.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;
using Ids = std::vector<std::int32_t>;

namespace {

// Well separated logits: every row is a permutation of multiples of 0.3, so that no finite
// difference crosses a tie.
Tensor separated(std::int64_t n, std::int64_t experts) {
  Tensor t = Tensor::empty({n, experts}, DType::f64);
  for (std::int64_t i = 0; i < n * experts; ++i) {
    const std::int64_t row = i / experts;
    t.data<double>()[i] =
        0.3 * static_cast<double>(((i % experts) * (row + 1) + row) % experts) - 0.6;
  }
  return t;
}

Tensor matrix(const std::vector<double>& values, std::int64_t rows) {
  return Tensor::from(values, {rows, static_cast<std::int64_t>(values.size()) / rows});
}

}  // namespace

TEST_CASE("softmax routing keeps the scores of the best experts", "[unit][ops]") {
  ops::RouterOptions options;
  options.top_k = 2;
  const auto r = ops::route(matrix({std::log(1.0), std::log(4.0), std::log(3.0), std::log(2.0)}, 1),
                            {}, options);
  CHECK(r.experts.to_vector<std::int32_t>() == Ids{1, 2});
  CHECK(r.weights.data<double>()[0] == Approx(0.4));
  CHECK(r.weights.data<double>()[1] == Approx(0.3));
  CHECK(r.scores.data<double>()[3] == Approx(0.2));
  CHECK(r.counts.to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 1, 1, 0});
  CHECK(r.dropped.data<std::int64_t>()[0] == 0);

  options.renormalize = true;
  options.route_scale = 2.5;
  const auto scaled = ops::route(
      matrix({std::log(1.0), std::log(4.0), std::log(3.0), std::log(2.0)}, 1), {}, options);
  CHECK(scaled.weights.data<double>()[0] == Approx(2.5 * 4 / 7));
  CHECK(scaled.weights.data<double>()[1] == Approx(2.5 * 3 / 7));
}

TEST_CASE("the selection bias chooses but does not weigh", "[unit][ops]") {
  ops::RouterOptions options;
  options.sigmoid = true;
  options.top_k = 1;
  const Tensor bias = Tensor::from<float>({0.0f, 0.0f, 1.0f}, {3});
  const auto r = ops::route(matrix({1.0, 2.0, -1.0}, 1), bias, options);
  CHECK(r.experts.to_vector<std::int32_t>() == Ids{2});
  CHECK(r.weights.data<double>()[0] == Approx(1.0 / (1.0 + std::exp(1.0))));
}

TEST_CASE("ties go to the lower expert and NaN selects valid experts", "[unit][ops]") {
  ops::RouterOptions options;
  options.top_k = 3;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto r = ops::route(matrix({1, 2, 1, 2, 1, nan, nan, nan, nan, nan}, 2), {}, options);
  CHECK(r.experts.to_vector<std::int32_t>() == Ids{1, 3, 0, 0, 1, 2});
}

TEST_CASE("group-limited routing by the largest or the two largest scores", "[unit][ops]") {
  // Groups {0, 1}, {2, 3}, {4, 5}: the largest score is in the last, the largest pair in the first.
  const Tensor logits = matrix({2.0, 1.9, 1.0, 1.5, 2.5, -4.0}, 1);
  ops::RouterOptions options;
  options.sigmoid = true;
  options.top_k = 2;
  options.groups = 3;
  options.top_groups = 1;
  CHECK(ops::route(logits, {}, options).experts.to_vector<std::int32_t>() == Ids{4, 5});
  options.group_top2 = true;
  CHECK(ops::route(logits, {}, options).experts.to_vector<std::int32_t>() == Ids{0, 1});
  options.group_top2 = false;
  options.top_groups = 2;
  CHECK(ops::route(logits, {}, options).experts.to_vector<std::int32_t>() == Ids{4, 0});
  options.top_groups = 3;
  CHECK(ops::route(logits, {}, options).experts.to_vector<std::int32_t>() == Ids{4, 0});
  // A bias moves whole groups.
  options.top_groups = 1;
  const Tensor bias = Tensor::from<float>({0, 0, 5, 5, 0, 0}, {6});
  CHECK(ops::route(logits, bias, options).experts.to_vector<std::int32_t>() == Ids{3, 2});
}

TEST_CASE("capacity drops the lowest scores of a group", "[unit][ops]") {
  // Two groups of two experts; all four tokens want group 0, whose capacity is ⌈0.75 · 4 · 1 / 2⌉
  // = 2.
  const Tensor logits = matrix({2, 0, 0, 0,  //
                                0, 3, 0, 0,  //
                                1, 0, 0, 0,  //
                                2.5, 0, 0, 0},
                               4);
  ops::RouterOptions options;
  options.groups = 2;
  options.top_groups = 2;
  options.capacity_factor = 0.75;
  const auto r = ops::route(logits, {}, options);
  CHECK(r.experts.to_vector<std::int32_t>() == Ids{-1, 1, -1, 0});
  CHECK(r.weights.data<double>()[0] == 0.0);
  CHECK(r.weights.data<double>()[1] == r.scores.data<double>()[5]);
  CHECK(r.dropped.data<std::int64_t>()[0] == 2);
  CHECK(r.counts.to_vector<std::int64_t>() == std::vector<std::int64_t>{3, 1, 0, 0});

  // Equal scores: the earlier tokens stay.
  const auto even = ops::route(Tensor::zeros({4, 4}, DType::f64), {}, options);
  CHECK(even.experts.to_vector<std::int32_t>() == Ids{0, 0, -1, -1});
  // Tokens that are kept take their places first, and stay even beyond the capacity.
  options.keep = Tensor::from<std::uint8_t>({0, 0, 1, 0}, {4});
  CHECK(ops::route(logits, {}, options).experts.to_vector<std::int32_t>() == Ids{-1, 1, 0, -1});
  options.keep = Tensor::from<std::uint8_t>({1, 0, 1, 1}, {4});
  CHECK(ops::route(logits, {}, options).experts.to_vector<std::int32_t>() == Ids{0, -1, 0, 0});
  options.keep = Tensor::from<std::uint8_t>({1, 0, 1}, {3});
  CHECK_THROWS_AS(ops::route(logits, {}, options), ArgumentError);
  options.keep = {};
  // A factor that covers everything drops nothing.
  options.capacity_factor = 2.0;
  CHECK(ops::route(logits, {}, options).dropped.data<std::int64_t>()[0] == 0);
}

TEST_CASE("router gradients", "[unit][ops]") {
  const Tensor bias = Tensor::from<float>({0.01f, 0, 0, -0.01f, 0.02f, 0, 0}, {7});
  for (const bool sigmoid : {false, true}) {
    for (const bool renormalize : {false, true}) {
      ops::RouterOptions options;
      options.sigmoid = sigmoid;
      options.renormalize = renormalize;
      options.top_k = 3;
      options.route_scale = 1.7;
      const Tensor x = separated(5, 7);
      CHECK(gradient_error([&](const auto& in) { return ops::route(in[0], bias, options).weights; },
                           {x}) < 1e-8);
      CHECK(gradient_error([&](const auto& in) { return ops::route(in[0], bias, options).scores; },
                           {x}) < 1e-8);
      // Both outputs at once.
      CHECK(gradient_error(
                [&](const auto& in) {
                  const auto r = ops::route(in[0], bias, options);
                  return ops::add(ops::sum(r.weights),
                                  ops::scale(ops::sum(r.scores.reshape({35})), 0.5));
                },
                {x}) < 1e-8);
    }
  }
}

TEST_CASE("router gradients with groups and dropped slots", "[unit][ops]") {
  for (const bool sigmoid : {false, true}) {
    ops::RouterOptions options;
    options.sigmoid = sigmoid;
    options.renormalize = true;
    options.top_k = 2;
    options.groups = 3;
    options.top_groups = 2;
    options.group_top2 = true;
    options.capacity_factor = 0.7;
    const Tensor x = random({7, 9}, 5);
    REQUIRE(ops::route(x, {}, options).dropped.template data<std::int64_t>()[0] > 0);
    CHECK(gradient_error([&](const auto& in) { return ops::route(in[0], {}, options).weights; },
                         {x}) < 1e-7);
  }
}

TEST_CASE("router of f32 logits agrees with f64", "[unit][ops]") {
  ops::RouterOptions options;
  options.top_k = 4;
  options.renormalize = true;
  const Tensor x = random({600, 33}, 9);
  const auto fine = ops::route(x, {}, options);
  const auto coarse = ops::route(x.to(DType::f32), {}, options);
  CHECK(fulcrum::testing::relative_error(coarse.scores, fine.scores) < 1e-6);
  CHECK(fulcrum::testing::relative_error(coarse.weights, fine.weights) < 1e-6);
  const auto counts = fine.counts.to_vector<std::int64_t>();
  CHECK(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) == 600 * 4);
}

TEST_CASE("router without tokens", "[unit][ops]") {
  ops::RouterOptions options;
  options.top_k = 2;
  options.capacity_factor = 1.0;
  const auto r = ops::route(Tensor::empty({0, 5}, DType::f32), {}, options);
  CHECK(r.experts.shape() == Shape{0, 2});
  CHECK(r.weights.shape() == Shape{0, 2});
  CHECK(r.counts.to_vector<std::int64_t>() == std::vector<std::int64_t>(5, 0));
}

TEST_CASE("router refuses wrong arguments", "[unit][ops]") {
  const Tensor x = random({4, 6}, 1);
  const auto with = [&](auto&& change) {
    ops::RouterOptions options;
    options.top_k = 2;
    change(options);
    return ops::route(x, {}, options);
  };
  CHECK_NOTHROW(with([](auto&) {}));
  CHECK_THROWS_AS(with([](auto& o) { o.top_k = 0; }), ArgumentError);
  CHECK_THROWS_AS(with([](auto& o) { o.top_k = 7; }), ArgumentError);
  CHECK_THROWS_AS(with([](auto& o) { o.groups = 4; }), ArgumentError);
  CHECK_THROWS_AS(with([](auto& o) { o.top_groups = 2; }), ArgumentError);
  CHECK_THROWS_AS(with([](auto& o) { o.top_k = 3, o.groups = 3; }), ArgumentError);
  CHECK_THROWS_AS(with([](auto& o) { o.capacity_factor = -1.0; }), ArgumentError);
  ops::RouterOptions options;
  CHECK_THROWS_AS(ops::route(random({6}, 1), {}, options), ArgumentError);
  CHECK_THROWS_AS(ops::route(x, Tensor::zeros({5}, DType::f32), options), ArgumentError);
  CHECK_THROWS_AS(ops::route(x, Tensor::zeros({6}, DType::f64), options), ArgumentError);
  CHECK_THROWS_AS(ops::route(Tensor::zeros({4, 6}, DType::bf16), {}, options), ArgumentError);
}
