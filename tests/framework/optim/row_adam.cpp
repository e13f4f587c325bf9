#include "framework/optim/row_adam.h"

#include "framework/optim/adamw.h"
#include "tests/catch.h"
#include "tests/framework/optim/reference.h"

using namespace fulcrum;
using namespace fulcrum::testing;

namespace {

void add_sparse(const Parameter& p, const std::vector<std::int64_t>& rows, const Tensor& values) {
  p.slot().sparse.rows.push_back(Tensor::from(rows, {static_cast<std::int64_t>(rows.size())}));
  p.slot().sparse.values.push_back(values.to(p.value.dtype()));
}

}  // namespace

TEST_CASE("RowAdam equals AdamW on rows that are always touched", "[unit][optim]") {
  for (const DType dtype : {DType::f64, DType::f32}) {
    constexpr std::int64_t kRows = 1301, kWidth = 17;  // several threads
    ParameterStore store = make_store(dtype);
    Parameter& table =
        store.create("table", ParameterKind::table, {kRows, kWidth}, Initializer::normal(0.02));
    ParameterStore dense_store = make_store(dtype);
    Parameter& dense = dense_store.create("table", ParameterKind::matrix, {kRows, kWidth},
                                          Initializer::normal(0.02));
    RowAdam rows({&table}, {5.0, 0.9, 0.95, 1e-8, 0.1});
    AdamW reference({&dense}, {0.9, 0.95, 1e-8, 0.1});
    std::vector<std::int64_t> all;
    for (std::int64_t r = 0; r < kRows; ++r) all.push_back(kRows - 1 - r);
    for (std::uint64_t t = 1; t <= 3; ++t) {
      table.slot().sparse.clear();
      // Two micro-batches, rows in descending order.
      const Tensor a = random({kRows, kWidth}, 2 * t);
      const Tensor b = random({kRows, kWidth}, 2 * t + 1);
      add_sparse(table, all, a);
      add_sparse(table, all, b);
      const Tensor sum = Tensor::zeros({kRows, kWidth}, DType::f64);
      for (std::int64_t r = 0; r < kRows; ++r) {
        for (std::int64_t c = 0; c < kWidth; ++c) {
          sum.data<double>()[(kRows - 1 - r) * kWidth + c] =
              a.data<double>()[r * kWidth + c] + b.data<double>()[r * kWidth + c];
        }
      }
      set_gradient(dense, sum);
      rows.step(0.01, 0.5);
      reference.step(0.05, 0.5);
      CHECK(table.slot().sparse.rows[0].numel() == kRows);
    }
    CHECK(relative_error(table.value, dense.value) < (dtype == DType::f64 ? 1e-13 : 1e-5));
  }
}

TEST_CASE("RowAdam changes touched rows only, each with a clock of its own", "[unit][optim]") {
  ParameterStore store = make_store();
  Parameter& table = store.create("table", ParameterKind::table, {6, 3}, Initializer::normal(1.0));
  const Tensor before = table.value.clone();
  RowAdam optimizer({&table}, {1.0, 0.9, 0.95, 1e-8, 0.0});
  const Tensor g = random({1, 3}, 5);
  // Row 4 is touched in steps 1 and 4, row 2 in step 4 alone.
  for (int t = 1; t <= 4; ++t) {
    table.slot().sparse.clear();
    if (t == 1) add_sparse(table, {4}, g);
    if (t == 4) {
      add_sparse(table, {4}, g);
      add_sparse(table, {2}, g);
    }
    optimizer.step(0.1);
    const auto& merged = table.slot().sparse.rows;
    CHECK((merged.empty() ? 0 : merged[0].numel()) == (t == 1 ? 1 : t == 4 ? 2 : 0));
  }
  for (std::int64_t r = 0; r < 6; ++r) {
    for (std::int64_t c = 0; c < 3; ++c) {
      const double moved = before.data<double>()[r * 3 + c] - table.value.data<double>()[r * 3 + c];
      // With bias correction every touch by the same gradient moves an element by lr · sign(g).
      const double sign = g.data<double>()[c] > 0 ? 1.0 : -1.0;
      CHECK(moved == Approx(r == 4 ? 0.2 * sign : r == 2 ? 0.1 * sign : 0.0).margin(1e-7));
    }
  }
  const auto state = optimizer.state();
  REQUIRE(state.size() == 2);
  CHECK(state[0].name == "optimizer.row_adam.moments/table");
  CHECK(state[1].name == "optimizer.row_adam.row_steps/table");
  CHECK(state[1].value.to_vector<std::int32_t>() == std::vector<std::int32_t>{0, 0, 1, 0, 2, 0});
  // Row 2 has one gradient behind it: its first moment, then its second.
  REQUIRE(state[0].value.shape() == Shape{6, 2, 3});
  for (std::int64_t c = 0; c < 3; ++c) {
    const double x = g.data<double>()[c];
    const double* moments = state[0].value.data<double>() + std::int64_t{2} * 2 * 3;
    CHECK(moments[c] == Approx(0.1 * x));
    CHECK(moments[3 + c] == Approx(0.05 * x * x));
  }
}

TEST_CASE("RowAdam checks its gradients", "[unit][optim]") {
  ParameterStore store = make_store();
  Parameter& table = store.create("table", ParameterKind::table, {6, 3}, Initializer::zeros());
  Parameter& vector = store.create("vector", ParameterKind::vector, {6}, Initializer::zeros());
  CHECK_THROWS_AS(RowAdam({&vector}, {}), ArgumentError);
  RowAdam optimizer({&table}, {});
  add_sparse(table, {6}, random({1, 3}, 1));
  CHECK_THROWS_AS(optimizer.step(0.1), ArgumentError);
  table.slot().sparse.clear();
  add_sparse(table, {1}, random({1, 4}, 1));
  CHECK_THROWS_AS(optimizer.step(0.1), ArgumentError);
  table.slot().sparse.clear();
  set_gradient(table, random({6, 3}, 1));
  CHECK_THROWS_AS(optimizer.step(0.1), ArgumentError);
}
