#include "framework/optim/muon.h"

#include <cmath>

#include "framework/optim/newton_schulz.h"
#include "tests/catch.h"
#include "tests/framework/optim/reference.h"

using namespace fulcrum;
using namespace fulcrum::testing;

namespace {

// The iteration of newton_schulz.h, written out in double; x is [rows, cols] of any orientation.
std::vector<double> reference(std::vector<double> x, std::int64_t rows, std::int64_t cols,
                              int iterations) {
  double norm = 0;
  for (const double value : x) norm += value * value;
  for (double& value : x) value /= std::sqrt(norm);
  const auto product = [](const std::vector<double>& p, const std::vector<double>& q,
                          std::int64_t m, std::int64_t k, std::int64_t n) {
    std::vector<double> out(static_cast<std::size_t>(m * n), 0.0);
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t l = 0; l < k; ++l)
        for (std::int64_t j = 0; j < n; ++j) out[i * n + j] += p[i * k + l] * q[l * n + j];
    return out;
  };
  for (int step = 0; step < iterations; ++step) {
    std::vector<double> transposed(x.size());
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < cols; ++j) transposed[j * rows + i] = x[i * cols + j];
    const auto a = product(x, transposed, rows, cols, rows);
    const auto ax = product(a, x, rows, rows, cols);
    const auto aax = product(a, ax, rows, rows, cols);
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = 3.4445 * x[i] - 4.7750 * ax[i] + 2.0315 * aax[i];
  }
  return x;
}

template <class T>
Tensor orthogonal(const Tensor& x, std::int64_t iterations) {
  const Tensor y = x.to(dtype_of<T>).clone();
  const Tensor scratch = Tensor::empty({newton_schulz_scratch(y.dim(0), y.dim(1))}, y.dtype());
  orthogonalize(y.data<T>(), y.dim(0), y.dim(1), iterations, scratch.data<T>());
  return y;
}

// Largest |⟨row i, row j⟩ − δij| over the rows of the smaller side.
double distance_from_orthogonal(const Tensor& x) {
  const std::int64_t rows = x.dim(0), cols = x.dim(1);
  const bool wide = rows <= cols;
  const std::int64_t small = std::min(rows, cols), large = std::max(rows, cols);
  const auto at = [&](std::int64_t i, std::int64_t l) {
    return x.data<double>()[wide ? i * cols + l : l * cols + i];
  };
  double worst = 0;
  for (std::int64_t i = 0; i < small; ++i) {
    for (std::int64_t j = 0; j < small; ++j) {
      double dot = 0;
      for (std::int64_t l = 0; l < large; ++l) dot += at(i, l) * at(j, l);
      worst = std::max(worst, std::abs(dot - (i == j ? 1.0 : 0.0)));
    }
  }
  return worst;
}

double rms(const Tensor& x) {
  double sum = 0;
  for (const double value : x.to(DType::f64).to_vector<double>()) sum += value * value;
  return std::sqrt(sum / static_cast<double>(x.numel()));
}

}  // namespace

TEST_CASE("Newton-Schulz follows its formula and nears an orthogonal matrix", "[unit][optim]") {
  for (const Shape& shape :
       {Shape{13, 29}, Shape{29, 13}, Shape{12, 12}, Shape{1, 5}, Shape{5, 1}, Shape{1, 1}}) {
    const Tensor x = random(shape, 3, 1e-6);
    for (const std::int64_t iterations : {0, 4, 5}) {
      const Tensor y = orthogonal<double>(x, iterations);
      const auto expected =
          reference(x.to_vector<double>(), shape[0], shape[1], static_cast<int>(iterations));
      CHECK(relative_error(y, Tensor::from(expected, shape)) < 1e-11);
      CHECK(relative_error(orthogonal<float>(x, iterations), y) < 1e-3);
    }
    // Singular values end in about [0.7, 1.2]: those of xᵀx in [0.49, 1.44].
    if (shape[0] != shape[1] || shape[0] == 1)
      CHECK(distance_from_orthogonal(orthogonal<double>(x, 5)) < 0.52);
  }
  const Tensor zero = orthogonal<double>(Tensor::zeros({3, 4}, DType::f64), 5);
  CHECK(zero.to_vector<double>() == std::vector<double>(12, 0.0));
}

TEST_CASE("Muon's update is momentum made orthogonal", "[unit][optim]") {
  for (const bool nesterov : {true, false}) {
    ParameterStore store = make_store();
    Parameter& p = store.create("p", ParameterKind::matrix, {9, 21}, Initializer::normal(1.0));
    Muon optimizer({&p}, {0.9, nesterov, 5, 0.2, 0.1});
    std::vector<double> momentum(static_cast<std::size_t>(p.value.numel()), 0.0);
    for (std::uint64_t t = 1; t <= 3; ++t) {
      const Tensor before = p.value.clone();
      const Tensor g = random_gradient(p, t);
      set_gradient(p, g);
      std::vector<double> u(momentum.size());
      for (std::size_t i = 0; i < u.size(); ++i) {
        const double x = 0.5 * g.data<double>()[i];
        momentum[i] = 0.9 * momentum[i] + 0.1 * x;
        u[i] = nesterov ? 0.9 * momentum[i] + 0.1 * x : momentum[i];
      }
      u = reference(u, 9, 21, 5);
      for (std::size_t i = 0; i < u.size(); ++i) {
        u[i] = before.data<double>()[i] * (1 - 0.03 * 0.1) - 0.03 * 0.2 * std::sqrt(21.0) * u[i];
      }
      optimizer.step(0.03, 0.5);
      CHECK(relative_error(p.value, Tensor::from(u, {9, 21})) < 1e-12);
    }
    CHECK(optimizer.state()[0].name == "optimizer.muon.momentum/p");
    CHECK(relative_error(optimizer.state()[0].value, Tensor::from(momentum, {9, 21})) < 1e-13);
  }
}

TEST_CASE("the RMS of a Muon update does not depend on shape or gradient scale", "[unit][optim]") {
  for (const Shape& shape : {Shape{16, 64}, Shape{64, 16}, Shape{8, 96}}) {
    for (const double scale : {1e-9, 1e3}) {
      ParameterStore store = make_store(DType::f32);
      Parameter& p = store.create("p", ParameterKind::matrix, shape, Initializer::zeros());
      Muon optimizer({&p}, {0.95, true, 5, 0.18, 0.1});
      set_gradient(p, random_gradient(p, 1, scale));
      optimizer.step(0.01);
      CHECK(rms(p.value) == Approx(0.01 * 0.18).epsilon(0.2));
    }
  }
}

TEST_CASE("stacked experts are matrices of their own", "[unit][optim]") {
  constexpr std::int64_t kExperts = 9;  // enough to be taken by several threads
  ParameterStore store = make_store();
  Parameter& stack =
      store.create("stack", ParameterKind::expert, {kExperts, 6, 4}, Initializer::normal(1.0));
  const Tensor g = random_gradient(stack, 1);
  g.slice(3, 4).zero();  // an expert without tokens
  const Tensor before = stack.value.clone();
  set_gradient(stack, g);
  Muon optimizer({&stack}, {});
  optimizer.step(0.1);
  for (std::int64_t e = 0; e < kExperts; ++e) {
    ParameterStore one = make_store();
    Parameter& p = one.create("p", ParameterKind::matrix, {6, 4}, Initializer::zeros());
    p.value.copy_from(before.slice(e, e + 1));
    set_gradient(p, g.slice(e, e + 1).reshape({6, 4}));
    Muon single({&p}, {});
    single.step(0.1);
    CHECK(relative_error(stack.value.slice(e, e + 1), p.value) < 1e-13);
  }
}

TEST_CASE("parts of a parameter are matrices of their own", "[unit][optim]") {
  const std::vector<std::int64_t> parts = {6, 2, 4};
  ParameterStore store = make_store();
  Parameter& fused =
      store.create("fused", ParameterKind::expert, {3, 12, 5}, Initializer::normal(1.0), parts);
  const Tensor g = random_gradient(fused, 1);
  const Tensor before = fused.value.clone();
  set_gradient(fused, g);
  Muon optimizer({&fused}, {});
  optimizer.step(0.1);
  std::int64_t first = 0;  // row of the stack, flattened
  const auto rows = [&](const Tensor& x, std::int64_t count) {
    return x.reshape({36, 5}).slice(first, first + count);
  };
  for (std::int64_t e = 0; e < 3; ++e) {
    for (const std::int64_t part : parts) {
      ParameterStore one = make_store();
      Parameter& p = one.create("p", ParameterKind::matrix, {part, 5}, Initializer::zeros());
      p.value.copy_from(rows(before, part));
      set_gradient(p, rows(g, part));
      Muon single({&p}, {});
      single.step(0.1);
      CHECK(relative_error(rows(fused.value.detach(), part), p.value) < 1e-13);
      first += part;
    }
  }
  CHECK_THROWS_AS(store.create("x", ParameterKind::matrix, {12, 5}, Initializer::zeros(), {6, 5}),
                  InternalError);
}

TEST_CASE("Muon leaves matrices alone that another rank holds", "[unit][optim]") {
  ParameterStore store = make_store();
  Parameter& mine = store.create("a", ParameterKind::matrix, {4, 6}, Initializer::zeros());
  Parameter& other = store.create("b", ParameterKind::matrix, {4, 6}, Initializer::normal(1.0));
  Parameter& stack = store.create("c", ParameterKind::expert, {4, 3, 6}, Initializer::zeros());
  Parameter& half = store.create("d", ParameterKind::matrix, {4, 6}, Initializer::zeros());
  const Tensor before = other.value.clone();
  keep_master_rows(other, 4, 0);
  keep_master_rows(stack, 1, 2);
  Muon optimizer({&mine, &other, &stack}, {});
  for (const Parameter* p : {&mine, &other, &stack}) set_gradient(*p, random_gradient(*p, 1));
  optimizer.step(0.1);
  CHECK(rms(mine.value) > 0.0);
  CHECK(other.value.to_vector<double>() == before.to_vector<double>());
  CHECK(rms(stack.value.slice(0, 1)) == 0.0);
  CHECK(rms(stack.value.slice(1, 2)) > 0.0);
  CHECK(rms(stack.value.slice(2, 3)) > 0.0);
  CHECK(rms(stack.value.slice(3, 4)) == 0.0);
  keep_master_rows(half, 0, 2);
  CHECK_THROWS_AS(Muon({&half}, {}), ArgumentError);
}

TEST_CASE("without a gradient Muon follows its momentum", "[unit][optim]") {
  ParameterStore store = make_store();
  Parameter& p = store.create("p", ParameterKind::matrix, {4, 6}, Initializer::zeros());
  Muon optimizer({&p}, {});
  optimizer.step(0.1);
  CHECK(rms(p.value) == 0.0);
  set_gradient(p, random_gradient(p, 1));
  optimizer.step(0.1);
  const Tensor before = p.value.clone();
  p.slot().fresh = true;
  optimizer.step(0.1);
  CHECK(relative_error(p.value, before) > 0.1);
}

TEST_CASE("Muon takes matrices only", "[unit][optim]") {
  ParameterStore store = make_store();
  Parameter& vector = store.create("v", ParameterKind::vector, {4}, Initializer::zeros());
  Parameter& expert = store.create("e", ParameterKind::expert, {4, 3}, Initializer::zeros());
  CHECK_THROWS_AS(Muon({&vector}, {}), ArgumentError);
  CHECK_THROWS_AS(Muon({&expert}, {}), ArgumentError);
  ParameterStore sharded(1, DType::f32, [](ParameterKind, std::int64_t rows) {
    return RowRange{0, rows / 2};
  });
  Parameter& half = sharded.create("h", ParameterKind::matrix, {4, 3}, Initializer::zeros());
  Parameter& experts = sharded.create("x", ParameterKind::expert, {4, 3, 2}, Initializer::zeros());
  CHECK_THROWS_AS(Muon({&half}, {}), ArgumentError);
  CHECK_NOTHROW(Muon({&experts}, {}));
}
