#include "framework/optim/adamw.h"

#include <cmath>

#include "tests/catch.h"
#include "tests/framework/optim/reference.h"

using namespace fulcrum;
using namespace fulcrum::testing;

namespace {

// One element at a time, in double.
struct Reference {
  AdamWOptions options;
  std::vector<double> w, m, v;

  explicit Reference(const Tensor& value, const AdamWOptions& o) : options(o) {
    w = value.to(DType::f64).to_vector<double>();
    m.assign(w.size(), 0);
    v = m;
  }
  void step(const Tensor* g, double scale, double lr, double decay, int t) {
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double x = g == nullptr ? 0 : scale * g->data<double>()[i];
      m[i] = options.beta1 * m[i] + (1 - options.beta1) * x;
      v[i] = options.beta2 * v[i] + (1 - options.beta2) * x * x;
      const double mean = m[i] / (1 - std::pow(options.beta1, t));
      const double square = v[i] / (1 - std::pow(options.beta2, t));
      w[i] -= lr * decay * w[i];
      w[i] -= lr * mean / (std::sqrt(square) + options.eps);
    }
  }
  double error(const Tensor& value) const {
    return relative_error(value, Tensor::from(w, {static_cast<std::int64_t>(w.size())}));
  }
};

}  // namespace

TEST_CASE("AdamW follows its formula", "[unit][optim]") {
  for (const DType dtype : {DType::f64, DType::f32}) {
    ParameterStore store = make_store(dtype);
    // Larger than one block of a thread, and odd.
    Parameter& matrix =
        store.create("matrix", ParameterKind::matrix, {211, 163}, Initializer::normal(0.5));
    Parameter& vector = store.create("vector", ParameterKind::vector, {37}, Initializer::ones());
    Parameter& empty =
        store.create("empty", ParameterKind::expert, {0, 3, 4}, Initializer::zeros());
    const AdamWOptions options{0.8, 0.97, 1e-6, 0.3};
    Reference matrix_reference(matrix.value, options);
    Reference vector_reference(vector.value, options);
    AdamW optimizer({&matrix, &vector, &empty}, options);
    for (int t = 1; t <= 5; ++t) {
      const double lr = 0.01 * t;
      const Tensor g1 = random_gradient(matrix, static_cast<std::uint64_t>(t));
      const Tensor g2 = random_gradient(vector, static_cast<std::uint64_t>(t), 1e-3);
      set_gradient(matrix, g1);
      set_gradient(vector, g2);
      const bool absent = t == 3;  // the vector gets no gradient, though the old one is still there
      if (absent) vector.slot().fresh = true;
      optimizer.step(lr, 0.25);
      matrix_reference.step(&g1, 0.25, lr, 0.3, t);
      vector_reference.step(absent ? nullptr : &g2, 0.25, lr, 0.0, t);
    }
    const double tolerance = dtype == DType::f64 ? 1e-13 : 1e-6;
    CHECK(optimizer.steps() == 5);
    CHECK(matrix_reference.error(matrix.value) < tolerance);
    CHECK(vector_reference.error(vector.value) < tolerance);
  }
}

TEST_CASE("AdamW updates the rows that its master holds", "[unit][optim]") {
  ParameterStore store = make_store(DType::f32);
  Parameter& whole = store.create("p", ParameterKind::matrix, {50, 7}, Initializer::normal(1.0));
  ParameterStore other = make_store(DType::f32);
  Parameter& part = other.create("p", ParameterKind::matrix, {50, 7}, Initializer::normal(1.0));
  const Tensor before = whole.value.clone();
  keep_master_rows(part, 11, 20);
  AdamW all({&whole}, {});
  AdamW some({&part}, {});
  CHECK(some.state()[0].value.shape() == Shape{20, 7});
  for (const std::uint64_t t : {1, 2}) {
    set_gradient(whole, random_gradient(whole, t));
    set_gradient(part, random_gradient(part, t));
    all.step(0.01);
    some.step(0.01);
  }
  const auto rows = [](const Tensor& x, std::int64_t begin, std::int64_t end) {
    return x.slice(begin, end).to_vector<float>();
  };
  CHECK(rows(part.value, 11, 31) == rows(whole.value, 11, 31));
  CHECK(rows(part.value, 0, 11) == rows(before, 0, 11));
  CHECK(rows(part.value, 31, 50) == rows(before, 31, 50));
}

TEST_CASE("AdamW keeps rounded values equal to their masters", "[unit][optim]") {
  ParameterStore store(7, ParameterStore::Placement{DType::bf16, {}});
  Parameter& p = store.create("p", ParameterKind::matrix, {30, 7}, Initializer::normal(1.0));
  const Tensor before = p.master.clone();
  const Tensor rounded_before = p.value.to(DType::f32);
  keep_master_rows(p, 4, 10);
  AdamW optimizer({&p}, {});
  set_gradient(p, random_gradient(p, 1));
  optimizer.step(0.1);
  const Tensor value = p.value.to(DType::f32);
  CHECK(relative_error(p.master, before.slice(4, 14)) > 0.01);
  CHECK(value.slice(4, 14).to_vector<float>() ==
        p.master.to(DType::bf16).to(DType::f32).to_vector<float>());
  CHECK(value.slice(14, 30).to_vector<float>() == rounded_before.slice(14, 30).to_vector<float>());
}

TEST_CASE("AdamW goes on from its state as if it had not stopped", "[unit][optim]") {
  ParameterStore store = make_store(DType::f32);
  Parameter& p = store.create("p", ParameterKind::matrix, {5, 7}, Initializer::normal(1.0));
  AdamW first({&p}, {});
  set_gradient(p, random_gradient(p, 1));
  first.step(0.01);

  ParameterStore copy = make_store(DType::f32);
  Parameter& q = copy.create("p", ParameterKind::matrix, {5, 7}, Initializer::zeros());
  q.value.copy_from(p.value);
  AdamW second({&q}, {});
  const auto from = first.state();
  const auto to = second.state();
  REQUIRE(from.size() == 2);
  CHECK(from[0].name == "optimizer.adamw.first_moment/p");
  CHECK(from[1].name == "optimizer.adamw.second_moment/p");
  CHECK(from[0].parameter == &p);
  for (std::size_t i = 0; i < from.size(); ++i) to[i].value.copy_from(from[i].value);
  second.set_steps(first.steps());

  const Tensor g = random_gradient(p, 2);
  set_gradient(p, g);
  set_gradient(q, g);
  first.step(0.01);
  second.step(0.01);
  CHECK(p.value.to_vector<float>() == q.value.to_vector<float>());
}

TEST_CASE("AdamW refuses sparse gradients and wrong shapes", "[unit][optim]") {
  ParameterStore store = make_store();
  Parameter& p = store.create("p", ParameterKind::matrix, {4, 2}, Initializer::zeros());
  AdamW optimizer({&p}, {});
  set_gradient(p, random({4, 3}, 1));
  CHECK_THROWS_AS(optimizer.step(0.1), ArgumentError);
  p.slot().grad = {};
  p.slot().sparse.rows.push_back(Tensor::zeros({1}, DType::i64));
  CHECK_THROWS_AS(optimizer.step(0.1), ArgumentError);
}
