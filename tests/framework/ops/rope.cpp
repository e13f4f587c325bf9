#include "framework/ops/rope.h"

#include <cmath>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;
using fulcrum::testing::relative_error;

TEST_CASE("rope turns pairs by position and frequency", "[unit][ops]") {
  const Tensor x = random({2, 3, 5, 6}, 1);
  const Tensor y = rope(x, 100.0, 7);
  for (int r = 0; r < 30; ++r) {
    const int position = 7 + r % 5;
    for (int i = 0; i < 3; ++i) {
      const double angle = position * std::pow(100.0, -2.0 * i / 6.0);
      const double a = x.data<double>()[r * 6 + i];
      const double b = x.data<double>()[r * 6 + 3 + i];
      CHECK(y.data<double>()[r * 6 + i] == Approx(a * std::cos(angle) - b * std::sin(angle)));
      CHECK(y.data<double>()[r * 6 + 3 + i] == Approx(b * std::cos(angle) + a * std::sin(angle)));
    }
  }
  CHECK(relative_error(rope(x.to(DType::f32), 100.0, 7), y) < 1e-6);
  // Beyond the first table.
  CHECK(rope(x, 100.0, 5000).data<double>()[0] ==
        Approx(x.data<double>()[0] * std::cos(5000.0) - x.data<double>()[3] * std::sin(5000.0)));
}

TEST_CASE("split_qkv_rope is a split, a transposition and two rotations", "[unit][ops]") {
  const std::int64_t batch = 2, seq = 3, heads = 4, kv = 2, dim = 6;
  const Tensor qkv = random({batch, seq, (heads + 2 * kv) * dim}, 1);
  const auto part = [&](std::int64_t first, std::int64_t count) {
    Tensor t = Tensor::empty({batch, count, seq, dim}, DType::f64);
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t h = 0; h < count; ++h)
        for (std::int64_t s = 0; s < seq; ++s)
          for (std::int64_t i = 0; i < dim; ++i)
            t.data<double>()[((b * count + h) * seq + s) * dim + i] =
                qkv.data<double>()[((b * seq + s) * (heads + 2 * kv) + first + h) * dim + i];
    return t;
  };
  const Qkv y = split_qkv_rope(qkv, heads, kv, dim, 10000.0, 2);
  CHECK(y.query.to_vector<double>() == rope(part(0, heads), 10000.0, 2).to_vector<double>());
  CHECK(y.key.to_vector<double>() == rope(part(heads, kv), 10000.0, 2).to_vector<double>());
  CHECK(y.value.to_vector<double>() == part(heads + kv, kv).to_vector<double>());
}

TEST_CASE("rope gradients", "[unit][ops]") {
  CHECK(gradient_error([](const auto& x) { return rope(x[0], 100.0, 1); },
                       {random({1, 2, 3, 4}, 1)}) < 1e-8);
  CHECK(gradient_error([](const auto& x) { return add(x[0], rope(x[0], 100.0)); },
                       {random({1, 2, 3, 4}, 1)}) < 1e-8);
  const std::vector<Tensor> qkv = {random({2, 3, 16}, 1)};  // two heads, one key head, dimension 4
  CHECK(gradient_error([](const auto& x) { return split_qkv_rope(x[0], 2, 1, 4, 100.0).query; },
                       qkv) < 1e-8);
  CHECK(gradient_error([](const auto& x) { return split_qkv_rope(x[0], 2, 1, 4, 100.0).key; },
                       qkv) < 1e-8);
  CHECK(gradient_error([](const auto& x) { return split_qkv_rope(x[0], 2, 1, 4, 100.0).value; },
                       qkv) < 1e-8);
  CHECK(gradient_error(
            [](const auto& x) {
              const Qkv first = split_qkv_rope(x[0], 2, 1, 4, 100.0);
              const Qkv again = split_qkv_rope(x[0], 2, 1, 4, 50.0);
              return add(add(first.key, first.value), add(again.key, again.value));
            },
            qkv) < 1e-8);
  CHECK(gradient_error([](const auto& x) { return split_qkv_rope(x[0], 2, 1, 4, 100.0).query; },
                       {random({2, 0, 16}, 1)}) < 1e-8);
}

TEST_CASE("rope refuses what does not fit", "[unit][ops]") {
  CHECK_THROWS_AS(rope(random({1, 2, 3, 5}, 1), 100.0), ArgumentError);
  CHECK_THROWS_AS(rope(random({2, 3, 4}, 1), 100.0), ArgumentError);
  CHECK_THROWS_AS(rope(random({1, 2, 3, 4}, 1), 0.0), ArgumentError);
  CHECK_THROWS_AS(rope(random({1, 2, 3, 4}, 1), 100.0, -1), ArgumentError);
  CHECK_THROWS_AS(split_qkv_rope(random({2, 3, 15}, 1), 2, 1, 4, 100.0), ArgumentError);
  CHECK_THROWS_AS(split_qkv_rope(random({2, 3, 12}, 1), 2, 1, 3, 100.0), ArgumentError);
}
