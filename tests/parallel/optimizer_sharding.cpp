#include "parallel/optimizer_sharding.h"

#include <algorithm>
#include <vector>

#include "framework/autograd/grad_slot.h"
#include "parallel/gradient_reducer.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"
#include "tests/parallel/sharding.h"
#include "tests/parallel/world.h"

using namespace fulcrum;
using namespace fulcrum::parallel;
using fulcrum::testing::world;

TEST_CASE("ranks divide masters, gradients and values", "[mpi]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool whole_matrices : {false, true}) {
      for (const std::int64_t expert : {1, 2}) {
        if (world().size() % expert != 0) continue;
        testing::check_sharding(dtype, Device{}, whole_matrices, expert);
      }
    }
  }
}

TEST_CASE("one rank divides nothing", "[unit][parallel]") {
  ParameterStore store(3, DType::f32);
  const Parameter& w = store.create("w", ParameterKind::matrix, {8, 3}, Initializer::normal(1.0));
  OptimizerSharding sharding(store, Mesh(), {.divide = true});
  CHECK_FALSE(sharding.divides(w));
  CHECK(w.master.raw() == w.value.raw());
  sharding.gather({store.parameters()[0].get()});
  sharding.finish();
}

TEST_CASE("whole matrices are spread over the ranks", "[mpi]") {
  const Mesh mesh(world(), 1, 1);
  ParameterStore store(3, DType::f32);
  for (int k = 0; k < 8; ++k) {
    store.create(fmt::format("w{}", k), ParameterKind::matrix, {6, 10}, Initializer::normal(1.0));
  }
  const OptimizerSharding sharding(store, mesh, {.divide = true, .whole_matrices = true});
  std::int64_t mine = 0;
  for (const auto& p : store.parameters()) {
    CHECK((p->master_rows.count == 0 || p->master_rows.count == 6));
    mine += p->master_rows.count / 6;
  }
  CHECK(mine == 8 / world().size());
}
