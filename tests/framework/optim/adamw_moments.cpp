// AdamW with moments in bf16.

#include <cmath>

#include "framework/optim/adamw.h"
#include "tests/catch.h"
#include "tests/framework/optim/reference.h"

using namespace fulcrum;
using namespace fulcrum::testing;

namespace {

AdamWOptions small_moments() {
  AdamWOptions options;
  options.moments = DType::bf16;
  options.seed = 3;
  return options;
}

double mean(const Tensor& x) {
  double sum = 0.0;
  for (const double v : x.to(DType::f64).to_vector<double>()) sum += v;
  return sum / static_cast<double>(x.numel());
}

}  // namespace

TEST_CASE("AdamW keeps moments of matrices in bf16, others as they are", "[unit][optim]") {
  ParameterStore store = make_store(DType::f32);
  std::vector<Parameter*> parameters;
  const auto create = [&](ParameterKind kind, const Shape& shape) {
    parameters.push_back(&store.create(name_of(kind), kind, shape, Initializer::zeros()));
  };
  create(ParameterKind::matrix, {3, 5});
  create(ParameterKind::expert, {2, 3, 5});
  create(ParameterKind::embedding, {3, 5});
  create(ParameterKind::head, {3, 5});
  create(ParameterKind::router, {3, 5});
  create(ParameterKind::vector, {5});
  for (const DType moments : {DType::f32, DType::bf16}) {
    AdamWOptions options;
    options.moments = moments;
    for (const StateTensor& s : AdamW(parameters, options).state()) {
      const ParameterKind kind = s.parameter->kind;
      const bool plain = kind == ParameterKind::router || kind == ParameterKind::vector;
      CHECK(s.value.dtype() == (plain ? DType::f32 : moments));
      CHECK(s.value.shape() == s.parameter->value.shape());
      CHECK(mean(s.value) == 0.0);
    }
  }
  AdamWOptions wrong;
  wrong.moments = DType::f64;
  CHECK_THROWS_AS(AdamW(parameters, wrong), ArgumentError);
}

TEST_CASE("AdamW updates by moments before they are rounded", "[unit][optim]") {
  for (const DType dtype : {DType::f64, DType::f32}) {
    ParameterStore store = make_store(dtype);
    ParameterStore other = make_store(dtype);
    // Larger than one block of a thread, and odd.
    const Shape shape{211, 163};
    Parameter& a = store.create("p", ParameterKind::matrix, shape, Initializer::normal(0.5));
    Parameter& b = other.create("p", ParameterKind::matrix, shape, Initializer::normal(0.5));
    AdamW exact({&a}, {});
    AdamW small({&b}, small_moments());
    const Tensor g = random_gradient(a, 1);
    set_gradient(a, g);
    set_gradient(b, g);
    exact.step(0.01, 0.25);
    small.step(0.01, 0.25);
    CHECK(relative_error(b.value, a.value) < (dtype == DType::f64 ? 1e-14 : 1e-7));
    for (std::size_t k = 0; k < 2; ++k) {
      const auto x = exact.state()[k].value.to(DType::f64).to_vector<double>();
      const auto y = small.state()[k].value.to(DType::f64).to_vector<double>();
      int wrong = 0;
      int nearest = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        wrong += std::abs(y[i] - x[i]) >= std::abs(x[i]) / 128;
        nearest +=
            y[i] == static_cast<double>(static_cast<float>(BFloat16(static_cast<float>(x[i]))));
      }
      CHECK(wrong == 0);
      // Uniform fractions of a step: the nearer neighbour in 3 of 4 cases.
      CHECK(nearest == Approx(0.75 * static_cast<double>(x.size())).epsilon(0.03));
    }
  }
}

TEST_CASE("moments in bf16 reach what they average, where nearest rounding stalls",
          "[unit][optim]") {
  ParameterStore store = make_store(DType::f32);
  Parameter& p = store.create("p", ParameterKind::matrix, {32, 32}, Initializer::zeros());
  AdamWOptions options = small_moments();
  options.beta1 = 0.99;
  options.beta2 = 0.999;
  AdamW optimizer({&p}, options);
  constexpr float kGradient = 0.3f;
  constexpr int kSteps = 5000;
  set_gradient(p, Tensor::full({32, 32}, kGradient, DType::f32));
  BFloat16 nearest;
  for (int t = 0; t < kSteps; ++t) {
    optimizer.step(1e-4);
    nearest = BFloat16(0.999f * static_cast<float>(nearest) + 0.001f * kGradient * kGradient);
  }
  const double square = kGradient * kGradient * (1 - std::pow(0.999, kSteps));
  CHECK(static_cast<float>(nearest) < 0.6 * square);
  // The noise of one is 5 % and 2 %, that of the mean of 1024 a 32nd of it.
  CHECK(mean(optimizer.state()[1].value) == Approx(square).epsilon(0.01));
  CHECK(mean(optimizer.state()[0].value) == Approx(kGradient).epsilon(0.003));
  // Adam's steps are of size lr.
  CHECK(std::abs(mean(p.value)) < 1e-4 * kSteps * 1.02);
  const auto v = optimizer.state()[1].value.to(DType::f64).to_vector<double>();
  double deviation = 0.0;
  for (const double x : v) deviation += (x / square - 1) * (x / square - 1);
  CHECK(std::sqrt(deviation / static_cast<double>(v.size())) < 0.08);
}

TEST_CASE("ranks that divide a tensor round its moments as one does", "[unit][optim]") {
  for (const ParameterKind kind : {ParameterKind::matrix, ParameterKind::expert}) {
    const Shape shape = kind == ParameterKind::expert ? Shape{50, 3, 7} : Shape{50, 7};
    ParameterStore all_rows = make_store(DType::f32);
    Parameter& whole = all_rows.create("p", kind, shape, Initializer::normal(1.0));
    AdamW all({&whole}, small_moments());
    // Rows 10..40 of the tensor on a rank, of which it updates rows 5..25.
    ParameterStore some_rows(7, DType::f32, [](ParameterKind, std::int64_t) {
      return RowRange{10, 30};
    });
    Parameter& part = some_rows.create("p", kind, shape, Initializer::normal(1.0));
    keep_master_rows(part, 5, 20);
    AdamW some({&part}, small_moments());
    for (const std::uint64_t t : {1, 2, 3}) {
      const Tensor g = random_gradient(whole, t);
      set_gradient(whole, g);
      set_gradient(part, g.slice(10, 40));
      all.step(0.01);
      some.step(0.01);
    }
    CHECK(same_bytes(part.master, whole.value.slice(15, 35)));
    for (std::size_t k = 0; k < 2; ++k) {
      CHECK(same_bytes(some.state()[k].value, all.state()[k].value.slice(15, 35)));
    }
  }
}

TEST_CASE("AdamW with moments in bf16 goes on as if it had not stopped", "[unit][optim]") {
  ParameterStore store = make_store(DType::f32);
  Parameter& p = store.create("p", ParameterKind::matrix, {50, 7}, Initializer::normal(1.0));
  AdamW first({&p}, small_moments());
  set_gradient(p, random_gradient(p, 1));
  first.step(0.01);

  ParameterStore copy = make_store(DType::f32);
  Parameter& q = copy.create("p", ParameterKind::matrix, {50, 7}, Initializer::zeros());
  q.value.copy_from(p.value);
  AdamW second({&q}, small_moments());
  for (std::size_t k = 0; k < 2; ++k) second.state()[k].value.copy_from(first.state()[k].value);
  second.set_steps(first.steps());
  for (const std::uint64_t t : {2, 3}) {
    const Tensor g = random_gradient(p, t);
    set_gradient(p, g);
    set_gradient(q, g);
    first.step(0.01);
    second.step(0.01);
  }
  CHECK(same_bytes(p.value, q.value));
  for (std::size_t k = 0; k < 2; ++k) {
    CHECK(same_bytes(first.state()[k].value, second.state()[k].value));
  }
}
