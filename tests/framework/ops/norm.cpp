#include "framework/ops/norm.h"

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

TEST_CASE("rms_norm equals its definition", "[unit][ops]") {
  for (const auto width : {1, 3, 16, 67}) {
    const Tensor x = random({2, 5, width}, 1);
    const Tensor w = random({width}, 2);
    const Tensor y = rms_norm(x, w, 1e-3);
    for (int r = 0; r < 10; ++r) {
      double squares = 0.0;
      for (int i = 0; i < width; ++i) squares += std::pow(x.data<double>()[r * width + i], 2);
      for (int i = 0; i < width; ++i) {
        CHECK(y.data<double>()[r * width + i] ==
              Approx(x.data<double>()[r * width + i] / std::sqrt(squares / width + 1e-3) *
                     w.data<double>()[i]));
      }
    }
    CHECK(relative_error(rms_norm(x.to(DType::f32), w.to(DType::f32), 1e-3), y) < 1e-6);
  }
}

TEST_CASE("norm gradients", "[unit][ops]") {
  const auto norm = [](const auto& x) { return rms_norm(x[0], x[1], 1e-2); };
  CHECK(gradient_error(norm, {random({3, 7}, 1), random({7}, 2)}) < 1e-7);
  CHECK(gradient_error(norm, {random({70, 3}, 1), random({3}, 2)}) < 1e-7);  // two row blocks
  CHECK(gradient_error(norm, {random({2, 1}, 1), random({1}, 2)}) < 1e-7);
  // A residual stream around the norm: the input's gradient is added to.
  CHECK(gradient_error([](const auto& x) { return add(x[0], rms_norm(x[0], x[1], 1e-2)); },
                       {random({3, 5}, 1), random({5}, 2)}) < 1e-7);
  const std::vector<Tensor> three = {random({3, 7}, 1), random({3, 7}, 2), random({7}, 3)};
  CHECK(gradient_error([](const auto& x) { return add_rms_norm(x[0], x[1], x[2], 1e-2).sum; },
                       three) < 1e-7);
  CHECK(gradient_error([](const auto& x) { return add_rms_norm(x[0], x[1], x[2], 1e-2).normed; },
                       three) < 1e-7);
  CHECK(gradient_error(
            [](const auto& x) {
              const NormedSum y = add_rms_norm(x[0], x[1], x[2], 1e-2);
              return add(y.sum, scale(y.normed, 0.7));
            },
            three) < 1e-7);
}

TEST_CASE("norm gradients for a part of the inputs", "[unit][ops]") {
  const Tensor x = random({3, 4}, 1);
  const Tensor w = make_leaf(random({4}, 2));
  Tape tape;
  Tensor y;
  {
    Tape::Scope recording(tape);
    y = add_rms_norm(x, x, w, 0.0).normed;
  }
  tape.backward(y, Tensor::full({3, 4}, 1.0, DType::f64), Tape::WeightGradients::deferred);
  CHECK_FALSE(w.grad().defined());
  tape.run_deferred();
  const Tensor direction = rms_norm(x, Tensor::full({4}, 1.0, DType::f64), 0.0);
  double first = 0.0;
  for (int r = 0; r < 3; ++r) first += direction.data<double>()[4 * r];
  CHECK(w.grad().data<double>()[0] == Approx(first));
}

TEST_CASE("rms_norm of no rows", "[unit][ops]") {
  CHECK(gradient_error([](const auto& x) { return rms_norm(x[0], x[1], 1e-6); },
                       {random({0, 4}, 1), random({4}, 2)}) < 1e-8);
}

TEST_CASE("norms refuse what does not fit", "[unit][ops]") {
  CHECK_THROWS_AS(rms_norm(random({3, 4}, 1), random({3}, 2), 1e-6), ArgumentError);
  CHECK_THROWS_AS(rms_norm(random({3, 4}, 1), random({4}, 2).to(DType::f32), 1e-6), ArgumentError);
  CHECK_THROWS_AS(rms_norm(random({3, 4}, 1), random({4}, 2), -1.0), ArgumentError);
  CHECK_THROWS_AS(add_rms_norm(random({3, 4}, 1), random({4, 3}, 1), random({4}, 2), 1e-6),
                  ArgumentError);
}
