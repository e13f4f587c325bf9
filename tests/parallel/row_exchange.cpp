#include "parallel/row_exchange.h"

#include <utility>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "framework/ops/table.h"
#include "parallel/mesh.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"
#include "tests/parallel/world.h"

using namespace fulcrum;
using namespace fulcrum::parallel;
using fulcrum::testing::world;

namespace {

constexpr std::int64_t kWidth = 3;

Tensor ids_of(const std::vector<std::int64_t>& ids) {
  return Tensor::from(ids, {static_cast<std::int64_t>(ids.size())});
}

// Rows that a rank wants in a micro-batch: overlapping between ranks, none at all for rank 1.
std::vector<std::int64_t> wanted(int rank, int micro_batch, std::int64_t rows) {
  std::vector<std::int64_t> ids;
  if (rank == 1) return ids;
  for (std::int64_t id = 0; id < rows; ++id) {
    if ((id * 7 + rank + 3 * micro_batch) % 4 < 2) ids.push_back(id);
  }
  return ids;
}

struct Table {
  Mesh mesh{world(), 1, 1};
  ParameterStore store{11, DType::f64, mesh.shard_policy()};
  const Parameter& parameter;
  Tensor whole;  // the table of one rank

  explicit Table(std::int64_t rows)
      : parameter(store.create("memory", ParameterKind::table, {rows, kWidth},
                               Initializer::normal(1.0))) {
    ParameterStore single(11, DType::f64);
    whole = single.create("memory", ParameterKind::table, {rows, kWidth}, Initializer::normal(1.0))
                .value.detach();
  }
};

// Gradient of this rank's shard, dense: [shard rows, width].
std::vector<double> dense_gradient(const Parameter& table) {
  std::vector<double> dense(static_cast<std::size_t>(table.shard.count * kWidth), 0.0);
  const SparseRows& sparse = table.slot().sparse;
  for (std::size_t k = 0; k < sparse.rows.size(); ++k) {
    REQUIRE(sparse.values[k].dim(0) == sparse.rows[k].numel());
    for (std::int64_t i = 0; i < sparse.rows[k].numel(); ++i) {
      const std::int64_t row = sparse.rows[k].data<std::int64_t>()[i];
      REQUIRE((0 <= row && row < table.shard.count));
      for (std::int64_t c = 0; c < kWidth; ++c) {
        dense[static_cast<std::size_t>(row * kWidth + c)] +=
            sparse.values[k].data<double>()[i * kWidth + c];
      }
    }
  }
  return dense;
}

}  // namespace

TEST_CASE("rows come from their owners and gradients return", "[mpi]") {
  for (const std::int64_t rows : {53, 4, 2, 1}) {
    Table table(rows);
    RowExchange exchange(table.mesh.data(), table.parameter);
    for (int step = 0; step < 2; ++step) {
      table.store.zero_gradients();
      for (int m = 0; m < 2; ++m) {
        const std::vector<std::int64_t> ids = wanted(world().rank(), m, rows);
        Tape tape;
        Tensor loss;
        {
          Tape::Scope recording(tape);
          const Tensor fetched = fetch_rows(exchange, ids_of(ids));
          REQUIRE(fetched.shape() == Shape({static_cast<std::int64_t>(ids.size()), kWidth}));
          for (std::size_t i = 0; i < ids.size(); ++i) {
            for (std::int64_t c = 0; c < kWidth; ++c) {
              REQUIRE(fetched.data<double>()[static_cast<std::int64_t>(i) * kWidth + c] ==
                      table.whole.data<double>()[ids[i] * kWidth + c]);
            }
          }
          loss = ops::sum(ops::scale(fetched, world().rank() + 1.0));
        }
        tape.backward(loss);
      }
      exchange.finish();
      // Each use of a row by rank r adds r + 1 to its gradient.
      std::vector<double> expected(static_cast<std::size_t>(table.parameter.shard.count * kWidth),
                                   0.0);
      for (int m = 0; m < 2; ++m) {
        for (int r = 0; r < world().size(); ++r) {
          for (const std::int64_t id : wanted(r, m, rows)) {
            const std::int64_t local = id - table.parameter.shard.first;
            if (local < 0 || local >= table.parameter.shard.count) continue;
            for (std::int64_t c = 0; c < kWidth; ++c)
              expected[static_cast<std::size_t>(local * kWidth + c)] += r + 1.0;
          }
        }
      }
      CHECK(dense_gradient(table.parameter) == expected);
    }
    std::int64_t foreign = 0;
    for (int m = 0; m < 2; ++m) {
      for (const std::int64_t id : wanted(world().rank(), m, rows)) {
        foreign += shard_of(id, rows, world().size()) != world().rank() ? 2 : 0;  // two steps
      }
    }
    CHECK(exchange.foreign_rows() == foreign);
  }
}

TEST_CASE("requests under way together", "[mpi]") {
  // Ids of two micro-batches and of two tables leave at once; the rows are fetched in another
  // order.
  Table first(53);
  Table second(20);
  RowExchange a(first.mesh.data(), first.parameter);
  RowExchange b(second.mesh.data(), second.parameter);
  const int me = world().rank();
  RowRequest a0 = a.begin(ids_of(wanted(me, 0, 53)));
  RowRequest a1 = a.begin(ids_of(wanted(me, 1, 53)));
  RowRequest b0 = b.begin(ids_of(wanted(me, 0, 20)));
  b.prefetch(b0);
  a.prefetch(a1);
  a.prefetch(a0);
  Tape tape;
  Tensor loss;
  {
    Tape::Scope recording(tape);
    loss = ops::sum(fetch_rows(b, b0));
    loss = ops::add(loss, ops::sum(fetch_rows(a, a1)));
    loss = ops::add(loss, ops::sum(fetch_rows(a, a0)));
  }
  double expected = 0.0;
  for (const auto& [table, m] : {std::pair{&first, 0}, {&first, 1}, {&second, 0}}) {
    for (const std::int64_t id : wanted(me, m, table->whole.dim(0))) {
      for (std::int64_t c = 0; c < kWidth; ++c)
        expected += table->whole.data<double>()[id * kWidth + c];
    }
  }
  CHECK(loss.data<double>()[0] == Approx(expected).margin(1e-12));
  tape.backward(loss);
  b.finish();
  a.finish();
  double received = 0.0;
  for (const double g : dense_gradient(first.parameter)) received += g;
  for (const double g : dense_gradient(second.parameter)) received += g;
  double sent = 0.0;
  for (int r = 0; r < world().size(); ++r) {
    sent += kWidth * static_cast<double>(wanted(r, 0, 53).size() + wanted(r, 1, 53).size() +
                                         wanted(r, 0, 20).size());
  }
  CHECK(world().sum(received) == sent);
}

TEST_CASE("contributions arrive in rank order", "[mpi]") {
  Table table(world().size());  // one row on each rank
  RowExchange exchange(table.mesh.data(), table.parameter);
  std::vector<std::int64_t> all;
  for (int r = 0; r < world().size(); ++r) all.push_back(r);
  Tape tape;
  Tensor loss;
  {
    Tape::Scope recording(tape);
    loss = ops::sum(ops::scale(fetch_rows(exchange, ids_of(all)), world().rank() + 1.0));
  }
  tape.backward(loss);
  exchange.finish();
  std::vector<double> order;
  for (const Tensor& values : table.parameter.slot().sparse.values) {
    for (std::int64_t i = 0; i < values.dim(0); ++i)
      order.push_back(values.data<double>()[i * kWidth]);
  }
  std::vector<double> expected;
  for (int r = 0; r < world().size(); ++r) expected.push_back(r + 1.0);
  CHECK(order == expected);
}

TEST_CASE("a rank that does not use its rows still answers", "[mpi]") {
  Table table(16);
  RowExchange exchange(table.mesh.data(), table.parameter);
  std::vector<std::int64_t> all(16);
  for (std::int64_t i = 0; i < 16; ++i) all[static_cast<std::size_t>(i)] = i;
  Tape tape;
  Tensor loss = make_leaf(Tensor::zeros({1}, DType::f64));
  {
    Tape::Scope recording(tape);
    const Tensor rows = fetch_rows(exchange, ids_of(all));
    loss = ops::scale(loss, 1.0);
    if (world().rank() == 0) loss = ops::add(loss, ops::sum(rows));
  }
  tape.backward(loss);
  exchange.finish();
  for (const double g : dense_gradient(table.parameter)) CHECK(g == 1.0);
}

TEST_CASE("without a tape there is no gradient to send", "[mpi]") {
  Table table(16);
  RowExchange exchange(table.mesh.data(), table.parameter);
  const Tensor rows = fetch_rows(exchange, ids_of({2, 3, 15}));
  CHECK(rows.data<double>()[8] == table.whole.data<double>()[15 * kWidth + 2]);
  const Tensor none = fetch_rows(exchange, ids_of({}));
  CHECK(none.shape() == Shape({0, kWidth}));
  exchange.finish();
  CHECK(table.parameter.slot().sparse.rows.empty());
}

TEST_CASE("row ids must ascend and exist", "[mpi]") {
  Table table(16);
  RowExchange exchange(table.mesh.data(), table.parameter);
  CHECK_THROWS_AS(exchange.begin(ids_of({3, 2})), ArgumentError);
  CHECK_THROWS_AS(exchange.begin(ids_of({3, 3})), ArgumentError);
  CHECK_THROWS_AS(exchange.begin(ids_of({-1})), ArgumentError);
  CHECK_THROWS_AS(exchange.begin(ids_of({4, 16})), ArgumentError);
  CHECK_THROWS_AS(exchange.begin(Tensor::zeros({2, 2}, DType::i64)), ArgumentError);
}
