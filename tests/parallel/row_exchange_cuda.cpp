// Rows of a table that GPUs share, against the same exchange in host memory. Several ranks on one
// GPU: see tests/gpu.

#include <cstring>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/core/memory_pool.h"
#include "framework/ops/table.h"
#include "parallel/mesh.h"
#include "parallel/row_exchange.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"
#include "tests/parallel/world.h"

using namespace fulcrum;
using namespace fulcrum::parallel;
using fulcrum::testing::random;
using fulcrum::testing::world;
using fulcrum::testing::world_gpu;

namespace {

constexpr int kMicroBatches = 3;

struct Table {
  Mesh mesh{world(), 1, 1};
  ParameterStore store;
  const Parameter& parameter;

  Table(std::int64_t rows, std::int64_t width, Device device)
      : store(11, ParameterStore::Placement{DType::f32, device}, mesh.shard_policy()),
        parameter(store.create("memory", ParameterKind::table, {rows, width},
                               Initializer::normal(1.0))) {}
};

// Overlapping between ranks; none at all for rank 1 in every second micro-batch.
Tensor wanted(int rank, int micro_batch, std::int64_t rows) {
  std::vector<std::int64_t> ids;
  for (std::int64_t id = 0; id < rows; ++id) {
    if (rank == 1 && micro_batch % 2 == 0) break;
    if ((id * 7 + rank + 3 * micro_batch) % 5 < 2) ids.push_back(id);
  }
  return Tensor::from(ids, {static_cast<std::int64_t>(ids.size())});
}

struct Outcome {
  std::vector<Tensor> rows;  // fetched, on the host
  std::vector<Tensor> ids;   // of the sparse gradient
  std::vector<Tensor> values;
};

// Everything that a step of several micro-batches exchanges.
Outcome step(Table& table, RowExchange& exchange) {
  const Device device = table.parameter.value.device();
  const std::int64_t rows = table.parameter.global_shape[0];
  table.store.zero_gradients();
  Outcome outcome;
  std::vector<RowRequest> requests;
  for (int m = 0; m < kMicroBatches; ++m) {
    requests.push_back(exchange.begin(wanted(world().rank(), m, rows)));
  }
  for (int m = 0; m < kMicroBatches; ++m) {
    RowRequest& request = requests[static_cast<std::size_t>(m)];
    exchange.prefetch(request);
    Tape tape;
    Tensor fetched;
    {
      const Tape::Scope recording(tape);
      fetched = fetch_rows(exchange, request);
    }
    outcome.rows.push_back(fetched.detach().to(Device{}));
    const auto seed = static_cast<std::uint64_t>(10 * world().rank() + m);
    tape.backward({fetched}, {random(fetched.shape(), seed).to(DType::f32).to(device)});
  }
  exchange.finish();
  for (const Tensor& ids : table.parameter.slot().sparse.rows) {
    outcome.ids.push_back(ids.to(Device{}));
  }
  for (const Tensor& values : table.parameter.slot().sparse.values) {
    outcome.values.push_back(values.to(Device{}));
  }
  return outcome;
}

void check_same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    REQUIRE(a[i].shape() == b[i].shape());
    CHECK(std::memcmp(a[i].raw(), b[i].raw(), static_cast<std::size_t>(a[i].bytes())) == 0);
  }
}

}  // namespace

TEST_CASE("rows travel between GPUs as between hosts", "[gpu][mpi]") {
  const Device gpu = world_gpu();
  if (world().alone()) return;  // then they are read in place
  for (const std::int64_t rows : {50021, 53, 2, 1}) {
    for (const std::int64_t width : {3, 40}) {
      INFO(rows << " rows of " << width);
      Table host(rows, width, Device{});
      Table device(rows, width, gpu);
      RowExchange on_host(host.mesh.data(), host.parameter);
      RowExchange on_gpu(device.mesh.data(), device.parameter);
      poison_memory(true);
      for (int round = 0; round < 3; ++round) {
        const Outcome expected = step(host, on_host);
        const Outcome found = step(device, on_gpu);
        check_same(found.rows, expected.rows);
        check_same(found.ids, expected.ids);
        check_same(found.values, expected.values);
      }
      poison_memory(false);
      CHECK(on_gpu.foreign_rows() == on_host.foreign_rows());
    }
  }
}

TEST_CASE("without a tape rows of GPUs arrive and no gradient is sent", "[gpu][mpi]") {
  const Device gpu = world_gpu();
  if (world().alone()) return;
  Table host(101, 8, Device{});
  Table device(101, 8, gpu);
  RowExchange on_host(host.mesh.data(), host.parameter);
  RowExchange on_gpu(device.mesh.data(), device.parameter);
  for (int round = 0; round < 20; ++round) {
    const Tensor ids = wanted(world().rank(), round, 101);
    check_same({fetch_rows(on_gpu, ids).to(Device{})}, {fetch_rows(on_host, ids)});
  }
  on_gpu.finish();
  CHECK(device.parameter.slot().sparse.rows.empty());
}
