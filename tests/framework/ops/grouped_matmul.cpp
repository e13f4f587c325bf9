#include "framework/ops/grouped_matmul.h"

#include <algorithm>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "framework/ops/matmul.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;
using fulcrum::testing::relative_error;

namespace {

Tensor offsets_of(const std::vector<std::int64_t>& offsets) {
  return Tensor::from(offsets, {static_cast<std::int64_t>(offsets.size())});
}

// One product a group.
Tensor reference(const Tensor& x, const Tensor& weight, const std::vector<std::int64_t>& offsets) {
  Tensor y = Tensor::zeros({x.dim(0), weight.dim(1)}, x.dtype());
  for (std::int64_t g = 0; g < weight.dim(0); ++g) {
    const Tensor w = weight.slice(g, g + 1).reshape({weight.dim(1), weight.dim(2)});
    y.slice(offsets[g], offsets[g + 1]).copy_from(linear(x.slice(offsets[g], offsets[g + 1]), w));
  }
  return y;
}

}  // namespace

TEST_CASE("grouped_linear equals one product a group", "[unit][ops]") {
  const std::vector<std::vector<std::int64_t>> cases = {
      {0, 3, 3, 10}, {0, 0, 0, 0}, {0, 10, 10, 10}, {0, 1, 300, 601}, {0, 256, 512, 513}};
  for (const auto& offsets : cases) {
    const std::int64_t rows = offsets.back();
    const Tensor x = random({rows, 5}, 1);
    const Tensor w = random({3, 7, 5}, 2);
    const Tensor expected = reference(x, w, offsets);
    CHECK(grouped_linear(x, w, offsets_of(offsets)).to_vector<double>().size() ==
          static_cast<std::size_t>(rows * 7));
    CHECK(relative_error(grouped_linear(x, w, offsets_of(offsets)), expected) < 1e-14);
    CHECK(relative_error(grouped_linear(x.to(DType::f32), w.to(DType::f32), offsets_of(offsets)),
                         expected) < 1e-6);
  }
  // Several column tiles.
  const Tensor x = random({5, 3}, 1);
  const Tensor w = random({2, 1030, 3}, 2);
  CHECK(relative_error(grouped_linear(x, w, offsets_of({0, 2, 5})), reference(x, w, {0, 2, 5})) <
        1e-14);
}

TEST_CASE("grouped_linear leaves rows behind the last group zero", "[unit][ops]") {
  const Tensor y = grouped_linear(random({4, 3}, 1), random({2, 2, 3}, 2), offsets_of({0, 1, 2}));
  for (int i = 4; i < 8; ++i) CHECK(y.data<double>()[i] == 0.0);
  CHECK(y.data<double>()[3] != 0.0);
}

TEST_CASE("grouped_linear gradients", "[unit][ops]") {
  const auto f = [](const auto& x) { return grouped_linear(x[0], x[1], x[2]); };
  CHECK(gradient_error(f, {random({6, 3}, 1), random({4, 2, 3}, 2), offsets_of({0, 2, 2, 5, 6})}) <
        1e-8);
  CHECK(gradient_error(f, {random({6, 3}, 1), random({2, 5, 3}, 2), offsets_of({0, 1, 4})}) < 1e-8);
  CHECK(gradient_error(f, {random({0, 3}, 1), random({2, 5, 3}, 2), offsets_of({0, 0, 0})}) < 1e-8);
  CHECK(gradient_error(f, {random({3, 2}, 1), random({0, 5, 2}, 2), offsets_of({0})}) < 1e-8);
  CHECK(gradient_error(
            [](const auto& x) {
              return add(grouped_linear(x[0], x[1], x[2]), grouped_linear(x[0], x[1], x[3]));
            },
            {random({4, 3}, 1), random({2, 3, 3}, 2), offsets_of({0, 1, 4}),
             offsets_of({0, 3, 3})}) < 1e-8);
}

TEST_CASE("an empty group overwrites a stale weight gradient", "[unit][ops]") {
  const Tensor x = random({3, 2}, 1);
  const Tensor w = make_leaf(random({2, 2, 2}, 2));
  w.slot()->grad = Tensor::full({2, 2, 2}, 99.0, DType::f64);
  Tape tape;
  Tensor y;
  {
    Tape::Scope recording(tape);
    y = grouped_linear(x, w, offsets_of({0, 3, 3}));
  }
  tape.backward(y, random({3, 2}, 3));
  for (int i = 4; i < 8; ++i) CHECK(w.grad().data<double>()[i] == 0.0);
}

TEST_CASE("grouped_linear in bf16 multiplies rounded operands", "[unit][ops]") {
  try {
    set_matmul_precision(MatmulPrecision::bf16);
  } catch (const UserError&) {
    return;
  }
  set_matmul_precision(MatmulPrecision::f32);
  const auto rounded = [](const Tensor& t) { return t.to(DType::bf16).to(DType::f64); };
  const std::vector<std::int64_t> offsets = {0, 33, 33, 97, 400, 401};
  const Tensor x = make_leaf(random({410, 20}, 1).to(DType::f32));
  const Tensor w = make_leaf(random({5, 13, 20}, 2).to(DType::f32));
  const Tensor seed = random({410, 13}, 3).to(DType::f32);
  const auto run = [&](const Tensor& x, const Tensor& w, const Tensor& seed) {
    Tape tape;
    Tensor y;
    {
      Tape::Scope recording(tape);
      y = grouped_linear(x, w, offsets_of(offsets));
    }
    tape.backward(y, seed);
    return y;
  };
  set_matmul_precision(MatmulPrecision::bf16);
  Tensor y = run(x, w, seed);
  set_matmul_precision(MatmulPrecision::f32);
  const Tensor x64 = make_leaf(rounded(x));
  const Tensor w64 = make_leaf(rounded(w));
  CHECK(relative_error(y, run(x64, w64, rounded(seed))) < 1e-6);
  CHECK(relative_error(x.grad(), x64.grad()) < 1e-6);
  CHECK(relative_error(w.grad(), w64.grad()) < 1e-6);
  // Again: gradients are added to.
  set_matmul_precision(MatmulPrecision::bf16);
  run(x, w, seed);
  set_matmul_precision(MatmulPrecision::f32);
  CHECK(relative_error(x.grad(), scale(x64.grad(), 2.0)) < 1e-6);
  CHECK(relative_error(w.grad(), scale(w64.grad(), 2.0)) < 1e-6);
}

TEST_CASE("grouped_linear refuses what does not fit", "[unit][ops]") {
  const Tensor x = random({4, 3}, 1);
  const Tensor w = random({2, 5, 3}, 2);
  CHECK_THROWS_AS(grouped_linear(x, random({2, 5, 4}, 2), offsets_of({0, 1, 4})), ArgumentError);
  CHECK_THROWS_AS(grouped_linear(x, random({5, 3}, 2), offsets_of({0, 1, 4})), ArgumentError);
  CHECK_THROWS_AS(grouped_linear(x, w, offsets_of({0, 4})), ArgumentError);
  CHECK_THROWS_AS(grouped_linear(x, w, offsets_of({1, 2, 4})), ArgumentError);
  CHECK_THROWS_AS(grouped_linear(x, w, offsets_of({0, 3, 2})), ArgumentError);
  CHECK_THROWS_AS(grouped_linear(x, w, offsets_of({0, 3, 5})), ArgumentError);
  CHECK_THROWS_AS(grouped_linear(x, w, Tensor::zeros({3}, DType::i32)), ArgumentError);
}
