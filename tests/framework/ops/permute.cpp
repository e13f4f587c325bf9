#include "framework/ops/permute.h"

#include <omp.h>

#include "framework/autograd/tape.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;

namespace {

Tensor ids(const std::vector<std::int32_t>& values, const Shape& shape) {
  return Tensor::from(values, shape);
}

}  // namespace

TEST_CASE("a permutation sorts slots by expert, then token", "[unit][ops]") {
  // Expert 1 is empty; token 2 lost a slot.
  const auto p = ops::make_permutation(ids({2, 0, 0, 3, -1, 2, 3, 2}, {4, 2}), 4);
  CHECK(p.offsets.to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 2, 2, 5, 7});
  CHECK(p.source.to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 2, 0, 5, 7, 3, 6});
  CHECK(p.slot.to_vector<std::int64_t>() == std::vector<std::int64_t>{2, 0, 1, 5, -1, 3, 6, 4});
}

TEST_CASE("permute and combine move the rows they name", "[unit][ops]") {
  const auto p = ops::make_permutation(ids({2, 0, 0, 3, -1, 2, -1, -1}, {4, 2}), 4);
  const Tensor x = random({4, 3}, 1);
  const Tensor rows = ops::permute(x, p);
  REQUIRE(rows.shape() == Shape{5, 3});
  for (std::int64_t r = 0; r < 5; ++r) {
    const std::int64_t t = p.source.data<std::int64_t>()[r] / 2;
    for (std::int64_t i = 0; i < 3; ++i) {
      CHECK(rows.data<double>()[r * 3 + i] == x.data<double>()[t * 3 + i]);
    }
  }
  // A token comes back times the number of its slots; token 3 has none.
  const Tensor h = ops::combine(rows, p);
  const Tensor addend = random({4, 3}, 2);
  const Tensor sum = ops::combine(rows, p, addend);
  const std::vector<double> kept = {2, 2, 1, 0};
  for (std::int64_t i = 0; i < 12; ++i) {
    CHECK(h.data<double>()[i] == Approx(kept[i / 3] * x.data<double>()[i]));
    CHECK(sum.data<double>()[i] == Approx(h.data<double>()[i] + addend.data<double>()[i]));
  }
}

TEST_CASE("permute and combine gradients", "[unit][ops]") {
  const auto p = ops::make_permutation(ids({4, 0, 0, 3, -1, 4, -1, -1, 1, 4}, {5, 2}), 5);
  const auto layer = [&](const auto& x) { return ops::combine(ops::permute(x[0], p), p, x[1]); };
  CHECK(gradient_error(layer, {random({5, 7}, 1), random({5, 7}, 2)}) < 1e-8);
  // Both halves add to a gradient that is there already.
  const auto twice = [&](const auto& x) {
    const Tensor y = ops::permute(x[0], p);
    return ops::permute(ops::combine(y, p, x[0]), p);
  };
  CHECK(gradient_error(twice, {random({5, 7}, 1)}) < 1e-8);
  const auto shared = [&](const auto& x) {
    const Tensor h = ops::combine(x[0], p);
    return ops::combine(ops::permute(h, p), p, ops::combine(x[0], p));
  };
  CHECK(gradient_error(shared, {random({7, 3}, 3)}) < 1e-8);
}

TEST_CASE("gradients of permute and combine add to what a leaf holds", "[unit][ops]") {
  const auto p = ops::make_permutation(ids({1, 0, -1, 1}, {2, 2}), 2);
  const Tensor x = make_leaf(random({2, 5}, 1));
  const Tensor y = make_leaf(random({3, 5}, 2));
  std::vector<double> first_x, first_y;
  for (int pass = 1; pass <= 2; ++pass) {
    Tape tape;
    Tensor rows, h;
    {
      Tape::Scope recording(tape);
      rows = ops::permute(x, p);
      h = ops::combine(y, p);
    }
    tape.backward({rows, h}, {random({3, 5}, 4), random({2, 5}, 5)});
    if (pass == 1) {
      first_x = x.grad().to_vector<double>();
      first_y = y.grad().to_vector<double>();
    }
    for (std::size_t i = 0; i < first_x.size(); ++i) {
      CHECK(x.grad().data<double>()[i] == Approx(pass * first_x[i]));
    }
    for (std::size_t i = 0; i < first_y.size(); ++i) {
      CHECK(y.grad().data<double>()[i] == Approx(pass * first_y[i]));
    }
  }
}

TEST_CASE("permute and combine accept no tokens and no rows", "[unit][ops]") {
  const auto none = ops::make_permutation(Tensor::empty({0, 2}, DType::i32), 3);
  CHECK(none.offsets.to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 0, 0, 0});
  const Tensor rows = ops::permute(Tensor::empty({0, 4}, DType::f32), none);
  CHECK(rows.shape() == Shape{0, 4});
  CHECK(ops::combine(rows, none).shape() == Shape{0, 4});

  const auto dropped = ops::make_permutation(ids({-1, -1}, {2, 1}), 3);
  const Tensor h = ops::combine(Tensor::empty({0, 2}, DType::f64), dropped);
  CHECK(h.to_vector<double>() == std::vector<double>{0, 0, 0, 0});
}

TEST_CASE("combine gives the same bits for any number of threads", "[unit][ops]") {
  const std::int64_t n = 501, k = 3, d = 67;
  std::vector<std::int32_t> chosen;
  for (std::int64_t i = 0; i < n * k; ++i) chosen.push_back(static_cast<std::int32_t>(i * 7 % 13));
  const auto p = ops::make_permutation(ids(chosen, {n, k}), 13);
  const Tensor x = random({n, d}, 1).to(DType::f32);
  const Tensor addend = random({n, d}, 2).to(DType::f32);
  const int threads = omp_get_max_threads();
  const auto run = [&](int count) {
    omp_set_num_threads(count);
    const Tensor leaf = make_leaf(x);
    Tape tape;
    Tensor h;
    {
      Tape::Scope recording(tape);
      h = ops::combine(ops::permute(leaf, p), p, addend);
    }
    tape.backward(h, x);
    auto bits = h.to_vector<float>();
    for (const float g : leaf.grad().to_vector<float>()) bits.push_back(g);
    return bits;
  };
  CHECK(run(1) == run(3));
  omp_set_num_threads(threads);
}

TEST_CASE("permute and combine refuse wrong arguments", "[unit][ops]") {
  CHECK_THROWS_AS(ops::make_permutation(ids({0, 3}, {1, 2}), 3), ArgumentError);
  CHECK_THROWS_AS(ops::make_permutation(ids({0, -2}, {1, 2}), 3), ArgumentError);
  CHECK_THROWS_AS(ops::make_permutation(ids({0, 1}, {2}), 3), ArgumentError);
  CHECK_THROWS_AS(ops::make_permutation(Tensor::zeros({1, 2}, DType::i64), 3), ArgumentError);
  const auto p = ops::make_permutation(ids({0, 1, 2, 1}, {2, 2}), 3);
  CHECK_THROWS_AS(ops::permute(random({3, 4}, 1), p), ArgumentError);
  CHECK_THROWS_AS(ops::permute(random({2, 4}, 1), ops::Permutation{}), ArgumentError);
  CHECK_THROWS_AS(ops::permute(Tensor::zeros({2, 4}, DType::bf16), p), ArgumentError);
  CHECK_THROWS_AS(ops::combine(random({3, 4}, 1), p), ArgumentError);
  CHECK_THROWS_AS(ops::combine(random({4, 4}, 1), p, random({2, 3}, 2)), ArgumentError);
  CHECK_THROWS_AS(ops::combine(random({4, 4}, 1), p, random({2, 4}, 2).to(DType::f32)),
                  ArgumentError);
}
