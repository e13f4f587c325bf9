#include "framework/ops/table.h"

#include <algorithm>
#include <functional>
#include <set>

#include "framework/autograd/tape.h"
#include "framework/core/philox.h"
#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;

namespace {

Tensor random_index(const Shape& shape, std::uint64_t bound, std::uint64_t seed) {
  const Random draw(seed, 2);
  const Tensor index = Tensor::empty(shape, DType::i64);
  for (std::int64_t i = 0; i < index.numel(); ++i) {
    index.data<std::int64_t>()[i] =
        static_cast<std::int64_t>(draw.below(static_cast<std::uint64_t>(i), bound));
  }
  return index;
}

Tensor dense(const SparseRows& sparse, const Shape& shape) {
  const Tensor out = Tensor::zeros(shape, DType::f64);
  for (std::size_t k = 0; k < sparse.rows.size(); ++k) {
    for (std::int64_t i = 0; i < sparse.rows[k].numel(); ++i) {
      for (std::int64_t c = 0; c < shape[1]; ++c) {
        out.data<double>()[sparse.rows[k].data<std::int64_t>()[i] * shape[1] + c] +=
            sparse.values[k].data<double>()[i * shape[1] + c];
      }
    }
  }
  return out;
}

}  // namespace

TEST_CASE("unique rows and their index rebuild the input", "[unit][ops]") {
  for (const Shape& shape : {Shape{0}, Shape{1}, Shape{13, 7}, Shape{2, 9, 5}, Shape{5001, 16}}) {
    const Tensor rows = random_index(shape, 9001, 5);
    const ops::UniqueRows u = ops::unique_rows(rows);
    const auto unique = u.unique.to_vector<std::int64_t>();
    const auto input = rows.to_vector<std::int64_t>();
    const std::set<std::int64_t> expected(input.begin(), input.end());
    CHECK(unique == std::vector<std::int64_t>(expected.begin(), expected.end()));
    REQUIRE(u.index.shape() == Shape{rows.numel()});
    std::int64_t wrong = 0;
    for (std::size_t i = 0; i < input.size(); ++i)
      wrong += unique[u.index.data<std::int64_t>()[i]] != input[i];
    CHECK(wrong == 0);
  }
}

TEST_CASE("gathered rows and their sparse gradient", "[unit][ops]") {
  constexpr std::int64_t kFirst = 100;
  const Tensor table = make_leaf(random({11, 3}, 1));
  const Tensor unique = Tensor::from<std::int64_t>({100, 104, 110}, {3});
  const Tensor weights = random({3, 3}, 2);
  for (const int uses : {1, 2}) {
    table.slot()->sparse.clear();
    Tape tape;
    Tensor y;
    {
      Tape::Scope recording(tape);
      y = ops::gather_table(table, unique, kFirst);
      for (int i = 1; i < uses; ++i) y = ops::add(y, ops::gather_table(table, unique, kFirst));
    }
    CHECK(y.data<double>()[3] == uses * table.data<double>()[4 * 3]);
    tape.backward(y, weights);
    CHECK_FALSE(table.grad().defined());
    REQUIRE(table.slot()->sparse.rows.size() == static_cast<std::size_t>(uses));
    CHECK(table.slot()->sparse.rows[0].to_vector<std::int64_t>() ==
          std::vector<std::int64_t>{0, 4, 10});
    const Tensor gradient = dense(table.slot()->sparse, table.shape());
    CHECK(gradient.data<double>()[4 * 3 + 1] == uses * weights.data<double>()[3 + 1]);
    CHECK(gradient.data<double>()[5 * 3] == 0.0);
  }
  CHECK(ops::gather_table(table, Tensor::empty({0}, DType::i64)).shape() == Shape{0, 3});
}

TEST_CASE("a table used in two passes completes its gradient once", "[unit][ops]") {
  const Tensor table = make_leaf(random({4, 2}, 1));
  int calls = 0;
  table.slot()->on_complete = [&] { ++calls; };
  Tape tape;
  Tensor y;
  {
    Tape::Scope recording(tape);
    const Tensor rows = Tensor::from<std::int64_t>({1, 2}, {2});
    y = ops::sum(ops::add(ops::gather_table(table, rows), ops::gather_table(table, rows)));
  }
  tape.backward(y);
  CHECK(calls == 1);
}

TEST_CASE("take_rows copies and its gradient sums", "[unit][ops]") {
  const Tensor index = Tensor::from<std::int64_t>({2, 0, 2, 2, 4, 0}, {3, 2});
  const Tensor source = random({6, 3}, 3);  // rows 1, 3 and 5 are never read
  const Tensor y = ops::take_rows(source, index);
  REQUIRE(y.shape() == Shape{3, 6});
  CHECK(y.data<double>()[1 * 6 + 3] == source.data<double>()[2 * 3]);
  CHECK(gradient_error([&](const auto& x) { return ops::take_rows(x[0], index); }, {source}) <
        1e-8);
  // Two uses: the second adds.
  CHECK(gradient_error(
            [&](const auto& x) {
              return ops::add(ops::take_rows(x[0], index), ops::take_rows(x[0], index));
            },
            {source}) < 1e-8);
  CHECK(gradient_error(
            [&](const auto& x) {
              return ops::take_rows(x[0], random_index({37, 5}, 9, 4));
            },
            {random({9, 1}, 3)}) < 1e-8);
  CHECK(ops::take_rows(source, Tensor::empty({0, 4}, DType::i64)).shape() == Shape{0, 12});
  CHECK(ops::take_rows(source, Tensor::empty({5, 0}, DType::i64)).shape() == Shape{5, 0});
}

TEST_CASE("the gradient of a whole lookup equals that of a dense table", "[unit][ops]") {
  const Tensor rows = random_index({301, 4}, 57, 8);
  const Tensor value = random({57, 5}, 9);
  const Tensor weights = random({301, 20}, 10);
  const Tensor table = make_leaf(value);
  Tape tape;
  Tensor y;
  {
    Tape::Scope recording(tape);
    const ops::UniqueRows u = ops::unique_rows(rows);
    y = ops::take_rows(ops::gather_table(table, u.unique), u.index.reshape(rows.shape()));
  }
  tape.backward(y, weights);
  const Tensor expected = Tensor::zeros({57, 5}, DType::f64);
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < rows.numel(); ++i) {
    for (std::int64_t c = 0; c < 5; ++c) {
      const std::int64_t at = rows.data<std::int64_t>()[i] * 5 + c;
      expected.data<double>()[at] += weights.data<double>()[i * 5 + c];
      wrong += y.data<double>()[i * 5 + c] != value.data<double>()[at];
    }
  }
  CHECK(wrong == 0);
  CHECK(fulcrum::testing::relative_error(dense(table.slot()->sparse, {57, 5}), expected) < 1e-14);
}

TEST_CASE("merging sums duplicates over all parts", "[unit][ops]") {
  SparseRows sparse;
  for (std::uint64_t k = 0; k < 3; ++k) {
    const std::int64_t n = k == 1 ? 0 : 40;
    sparse.rows.push_back(random_index({n}, 23, k));
    sparse.values.push_back(random({n, 7}, 20 + k));
  }
  const Tensor before = dense(sparse, {23, 7});
  const ops::MergedRows merged = ops::merge_sparse(sparse, 1000);
  const auto rows = merged.rows.to_vector<std::int64_t>();
  CHECK(std::adjacent_find(rows.begin(), rows.end(), std::greater_equal<>()) == rows.end());
  ops::merge_in_place(sparse, 1000);
  REQUIRE(sparse.rows.size() == 1);
  CHECK(fulcrum::testing::relative_error(dense(sparse, {23, 7}), before) < 1e-14);
  // Now plain: no copy is made.
  CHECK(ops::merge_sparse(sparse, 1000).values.raw() == sparse.values[0].raw());
}

TEST_CASE("merging nothing", "[unit][ops]") {
  SparseRows sparse;
  CHECK_FALSE(ops::merge_sparse(sparse, 1000).rows.defined());
  ops::merge_in_place(sparse, 1000);
  CHECK(sparse.rows.empty());
  sparse.rows.push_back(Tensor::empty({0}, DType::i64));
  sparse.values.push_back(Tensor::empty({0, 3}, DType::f32));
  CHECK(ops::merge_sparse(sparse, 1000).rows.numel() == 0);
}

TEST_CASE("table arguments are checked", "[unit][ops]") {
  const Tensor table = random({5, 2}, 1);
  const auto ids = [](const std::vector<std::int64_t>& v) {
    return Tensor::from(v, {static_cast<std::int64_t>(v.size())});
  };
  CHECK_THROWS_AS(ops::unique_rows(ids({1, -2})), ArgumentError);
  CHECK_THROWS_AS(ops::unique_rows(Tensor::zeros({3}, DType::i32)), ArgumentError);
  CHECK_THROWS_AS(ops::gather_table(table, ids({5})), ArgumentError);
  CHECK_THROWS_AS(ops::gather_table(table, ids({3}), 4), ArgumentError);
  CHECK_THROWS_AS(ops::gather_table(table.reshape({10}), ids({1})), ArgumentError);
  CHECK_THROWS_AS(ops::take_rows(table, ids({1})), ArgumentError);
  CHECK_THROWS_AS(ops::take_rows(table, ids({1, -1}).reshape({1, 2})), ArgumentError);
  CHECK_THROWS_AS(ops::take_rows(table, ids({5}).reshape({1, 1})), ArgumentError);
  SparseRows odd;
  odd.rows.push_back(ids({1, 2}));
  CHECK_THROWS_AS(ops::merge_sparse(odd, 1000), ArgumentError);
  odd.values.push_back(random({3, 2}, 1));
  CHECK_THROWS_AS(ops::merge_sparse(odd, 1000), ArgumentError);
  Tape tape;
  Tape::Scope recording(tape);
  const Tensor computed = ops::scale(make_leaf(table), 2.0);
  CHECK_THROWS_AS(ops::gather_table(computed, ids({1})), ArgumentError);
}
