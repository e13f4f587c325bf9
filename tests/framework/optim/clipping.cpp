#include "framework/optim/clipping.h"

#include <omp.h>

#include <cmath>
#include <limits>

#include "tests/catch.h"
#include "tests/framework/optim/reference.h"

using namespace fulcrum;
using namespace fulcrum::testing;

TEST_CASE("square sums count dense and merged sparse gradients", "[unit][optim]") {
  ParameterStore store = make_store(DType::f32);
  Parameter& dense = store.create("dense", ParameterKind::matrix, {3, 2}, Initializer::zeros());
  Parameter& stale = store.create("stale", ParameterKind::matrix, {3, 2}, Initializer::zeros());
  Parameter& none = store.create("none", ParameterKind::matrix, {3, 2}, Initializer::zeros());
  Parameter& table = store.create("table", ParameterKind::table, {9, 1}, Initializer::zeros());
  set_gradient(dense, Tensor::full({3, 2}, 2.0, DType::f64));
  set_gradient(stale, Tensor::full({3, 2}, 50.0, DType::f64));
  stale.slot().fresh = true;
  // Row 4 gets 1 + 2, row 7 gets 4.
  table.slot().sparse.rows.push_back(Tensor::from<std::int64_t>({4, 7, 4}, {3}));
  table.slot().sparse.values.push_back(Tensor::from<float>({1, 4, 2}, {3, 1}));
  const auto sum = [](const std::vector<Parameter*>& parameters) {
    return gradient_square_sum(parameters, Device{}).item();
  };
  CHECK(sum({}) == 0.0);
  CHECK(sum({&dense, &stale, &none}) == Approx(24.0));
  CHECK(sum({&table}) == Approx(25.0));
  CHECK(sum({&dense, &table}) == Approx(49.0));
  keep_master_rows(dense, 1, 2);
  CHECK(sum({&dense}) == Approx(16.0));
}

TEST_CASE("square sums do not depend on the number of threads", "[unit][optim]") {
  const Tensor x = random({100003}, 1);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const double one = square_sum(x);
  omp_set_num_threads(3);
  const double three = square_sum(x);
  omp_set_num_threads(threads);
  CHECK(one == three);
  double expected = 0;
  for (const double value : x.to_vector<double>()) expected += value * value;
  CHECK(one == Approx(expected));
}

TEST_CASE("the clip factor", "[unit][optim]") {
  CHECK(clip_factor(16.0, 1.0) == 0.25);
  CHECK(clip_factor(0.25, 1.0) == 1.0);
  CHECK(clip_factor(0.0, 1.0) == 1.0);
  CHECK(clip_factor(16.0, 0.0) == 1.0);
  CHECK(std::isnan(clip_factor(std::numeric_limits<double>::infinity(), 1.0)));
  CHECK(std::isnan(clip_factor(std::nan(""), 1.0)));
}
