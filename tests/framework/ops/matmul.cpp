#include "framework/ops/matmul.h"

#include <array>
#include <limits>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;
using fulcrum::testing::relative_error;

namespace {

// The definition, in double.
Tensor reference(const Tensor& a, const Tensor& b, bool ta, bool tb) {
  const Tensor x = a.to(DType::f64);
  const Tensor y = b.to(DType::f64);
  const std::int64_t m = x.dim(ta ? 1 : 0), k = x.dim(ta ? 0 : 1), n = y.dim(tb ? 0 : 1);
  Tensor c = Tensor::zeros({m, n}, DType::f64);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t l = 0; l < k; ++l) {
        c.data<double>()[i * n + j] += x.data<double>()[ta ? l * m + i : i * k + l] *
                                       y.data<double>()[tb ? j * k + l : l * n + j];
      }
    }
  }
  return c;
}

Tensor rounded(const Tensor& x) { return x.to(DType::bf16).to(DType::f32); }

bool have_bf16() {
  try {
    set_matmul_precision(MatmulPrecision::bf16);
  } catch (const UserError&) {
    return false;
  }
  set_matmul_precision(MatmulPrecision::f32);
  return true;
}

struct Bf16Scope {
  Bf16Scope() { set_matmul_precision(MatmulPrecision::bf16); }
  ~Bf16Scope() { set_matmul_precision(MatmulPrecision::f32); }
};

}  // namespace

TEST_CASE("matmul equals its definition for every transposition", "[unit][ops]") {
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      for (const auto& [m, n, k] :
           {std::array{1, 1, 1}, std::array{5, 3, 7}, std::array{33, 17, 65}}) {
        const Tensor a = random(ta ? Shape{k, m} : Shape{m, k}, 1);
        const Tensor b = random(tb ? Shape{n, k} : Shape{k, n}, 2);
        CHECK(relative_error(matmul(a, b, ta, tb), reference(a, b, ta, tb)) < 1e-14);
        CHECK(relative_error(matmul(a.to(DType::f32), b.to(DType::f32), ta, tb),
                             reference(a, b, ta, tb)) < 1e-6);
      }
    }
  }
}

TEST_CASE("matmul and linear gradients", "[unit][ops]") {
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      CHECK(gradient_error([=](const auto& x) { return matmul(x[0], x[1], ta, tb); },
                           {random(ta ? Shape{4, 3} : Shape{3, 4}, 1),
                            random(tb ? Shape{5, 4} : Shape{4, 5}, 2)}) < 1e-8);
    }
  }
  CHECK(gradient_error([](const auto& x) { return matmul(x[0], x[0]); }, {random({3, 3}, 1)}) <
        1e-8);
  CHECK(gradient_error([](const auto& x) { return linear(x[0], x[1]); },
                       {random({2, 3, 5}, 1), random({7, 5}, 2)}) < 1e-8);
  CHECK(gradient_error([](const auto& x) { return linear(linear(x[0], x[1]), x[1]); },
                       {random({2, 3}, 1), random({3, 3}, 2)}) < 1e-8);
}

TEST_CASE("linear defers only the weight's gradient", "[unit][ops]") {
  const Tensor x = make_leaf(random({4, 3}, 1));
  const Tensor w = make_leaf(random({2, 3}, 2));
  Tape tape;
  Tensor y;
  {
    Tape::Scope recording(tape);
    y = linear(x, w);
  }
  const Tensor seed = random({4, 2}, 3);
  tape.backward(y, seed, Tape::WeightGradients::deferred);
  CHECK(x.grad().defined());
  CHECK_FALSE(w.grad().defined());
  tape.run_deferred();
  CHECK(relative_error(w.grad(), reference(seed, x, true, false)) < 1e-14);
}

TEST_CASE("matmul of empty matrices", "[unit][ops]") {
  CHECK(matmul(random({0, 3}, 1), random({3, 4}, 2)).shape() == Shape({0, 4}));
  CHECK(matmul(random({3, 4}, 1), random({4, 0}, 2)).shape() == Shape({3, 0}));
  CHECK(matmul(random({2, 0}, 1), random({0, 2}, 2)).to_vector<double>() ==
        std::vector<double>(4, 0.0));
  CHECK(gradient_error([](const auto& x) { return linear(x[0], x[1]); },
                       {random({0, 3}, 1), random({2, 3}, 2)}) < 1e-8);
}

TEST_CASE("gemm scales, adds and ignores what it overwrites", "[unit][ops]") {
  const Tensor a = random({4, 6}, 1);
  const Tensor b = random({6, 5}, 2);
  const Tensor c = random({4, 5}, 3);
  const Tensor product = reference(a, b, false, false);
  Tensor out = c.clone();
  gemm<double>(false, false, 4, 5, 6, 2.0, a.data<double>(), 6, b.data<double>(), 5, 0.5,
               out.data<double>(), 5);
  for (int i = 0; i < 20; ++i) {
    CHECK(out.data<double>()[i] ==
          Approx(2.0 * product.data<double>()[i] + 0.5 * c.data<double>()[i]).epsilon(1e-12));
  }
  out.fill(std::numeric_limits<double>::quiet_NaN());
  gemm<double>(false, false, 4, 5, 6, 1.0, a.data<double>(), 6, b.data<double>(), 5, 0.0,
               out.data<double>(), 5);
  CHECK(relative_error(out, product) < 1e-14);
  // An empty inner dimension.
  gemm<double>(false, false, 4, 5, 0, 1.0, nullptr, 1, nullptr, 5, 3.0, out.data<double>(), 5);
  CHECK(out.data<double>()[7] == Approx(3.0 * product.data<double>()[7]));
}

TEST_CASE("matmul and linear refuse what does not fit", "[unit][ops]") {
  CHECK_THROWS_AS(matmul(random({3, 4}, 1), random({3, 4}, 2)), ArgumentError);
  CHECK_THROWS_AS(matmul(random({3}, 1), random({3, 4}, 2)), ArgumentError);
  CHECK_THROWS_AS(matmul(random({3, 4}, 1), random({4, 3}, 2).to(DType::f32)), ArgumentError);
  CHECK_THROWS_AS(linear(random({3, 4}, 1), random({4, 3}, 2)), ArgumentError);
  CHECK_THROWS_AS(linear(random({3, 4}, 1), random({4}, 2)), ArgumentError);
  CHECK_THROWS_AS(matmul(Tensor::zeros({2, 2}, DType::i32), Tensor::zeros({2, 2}, DType::i32)),
                  ArgumentError);
}

TEST_CASE("bf16 products equal exact products of rounded inputs", "[unit][ops]") {
  if (!have_bf16()) return;
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      for (const auto& [m, n, k] :
           {std::array{1, 1, 1}, std::array{5, 3, 7}, std::array{33, 17, 65}, std::array{64, 1, 32},
            std::array{1, 70, 129}}) {
        const Tensor a = random(ta ? Shape{k, m} : Shape{m, k}, 1).to(DType::f32);
        const Tensor b = random(tb ? Shape{n, k} : Shape{k, n}, 2).to(DType::f32);
        const Tensor expected = reference(rounded(a), rounded(b), ta, tb);
        const Bf16Scope scope;
        CHECK(relative_error(matmul(a, b, ta, tb), expected) < 1e-6);
        // On one thread inside a parallel region.
        std::vector<Tensor> each(3);
#pragma omp parallel for num_threads(3)
        for (int i = 0; i < 3; ++i) each[i] = matmul(a, b, ta, tb);
        for (const Tensor& c : each) CHECK(relative_error(c, expected) < 1e-6);
      }
    }
  }
}

TEST_CASE("bf16 gemm scales and adds", "[unit][ops]") {
  if (!have_bf16()) return;
  const Tensor a = random({64, 40}, 1).to(DType::f32);
  const Tensor b = random({40, 80}, 2).to(DType::f32);
  for (const float beta : {0.0f, 1.0f, -0.75f}) {
    const Tensor c = random({64, 80}, 3).to(DType::f32);
    const Tensor expected = add(reference(rounded(scale(a, 2.5)), rounded(b), false, false),
                                scale(c.to(DType::f64), beta));
    const Bf16Scope scope;
    gemm<float>(false, false, 64, 80, 40, 2.5f, a.data<float>(), 40, b.data<float>(), 80, beta,
                c.data<float>(), 80);
    CHECK(relative_error(c, expected) < 1e-6);
  }
}

TEST_CASE("bf16 products of empty matrices", "[unit][ops]") {
  if (!have_bf16()) return;
  const Bf16Scope scope;
  const auto zeros = [](const Shape& shape) { return Tensor::zeros(shape, DType::f32); };
  CHECK(matmul(zeros({0, 3}), zeros({3, 4})).shape() == Shape({0, 4}));
  CHECK(matmul(zeros({2, 0}), zeros({0, 2})).to_vector<float>() == std::vector<float>(4, 0.0f));
}

TEST_CASE("bf16 linear: gradients are those of the rounded operands", "[unit][ops]") {
  if (!have_bf16()) return;
  const Tensor x = make_leaf(random({2, 9, 20}, 1).to(DType::f32));
  const Tensor w = make_leaf(random({13, 20}, 2).to(DType::f32));
  const Tensor seed = random({2, 9, 13}, 3).to(DType::f32);
  const auto run = [&] {
    Tape tape;
    Tensor y;
    {
      Tape::Scope recording(tape);
      y = linear(x, w);
    }
    tape.backward(y, seed);
  };
  {
    const Bf16Scope scope;
    run();
    const Tensor g = rounded(seed).reshape({18, 13});
    CHECK(relative_error(x.grad(), reference(g, rounded(w), false, false)) < 1e-6);
    CHECK(relative_error(w.grad(), reference(g, rounded(x).reshape({18, 20}), true, false)) < 1e-6);
    run();  // adds
    CHECK(relative_error(w.grad(), reference(scale(g, 2.0), rounded(x).reshape({18, 20}), true,
                                             false)) < 1e-6);
    // A product that asks for f32 gets it.
    CHECK(relative_error(linear(x.detach(), w.detach(), MatmulPrecision::f32).reshape({18, 13}),
                         reference(x.reshape({18, 20}), w, false, true)) < 1e-6);
  }
  CHECK(matmul_precision() == MatmulPrecision::f32);
}
