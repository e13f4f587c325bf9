#include "parallel/mesh.h"

#include "tests/catch.h"
#include "tests/parallel/world.h"

using namespace fulcrum;
using namespace fulcrum::parallel;
using fulcrum::testing::world;

namespace {

std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const UserError& error) {
    return error.what();
  }
  return {};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("shards are even, cover all rows, and know their rows", "[unit][parallel]") {
  for (const std::int64_t rows : {0, 1, 5, 12, 1000003}) {
    for (const std::int64_t parts : {1, 2, 3, 7, 8}) {
      std::int64_t next = 0;
      for (std::int64_t i = 0; i < parts; ++i) {
        const RowRange range = shard(rows, parts, i);
        CHECK(range.first == next);
        CHECK(range.count == rows / parts + (i < rows % parts ? 1 : 0));
        if (range.count > 0) {
          CHECK(shard_of(range.first, rows, parts) == i);
          CHECK(shard_of(range.first + range.count - 1, rows, parts) == i);
        }
        next += range.count;
      }
      CHECK(next == rows);
    }
  }
}

TEST_CASE("mesh rules name the factors", "[unit][parallel]") {
  CHECK(message([] { MeshShape{8, 2, 4}.check(); }).empty());
  const std::string stages = message([] { MeshShape{6, 4, 1}.check(); });
  CHECK(contains(stages, "6 ranks"));
  CHECK(contains(stages, "parallel.pipeline = 4"));
  const std::string experts = message([] { MeshShape{8, 2, 3}.check(); });
  CHECK(contains(experts, "parallel.expert = 3"));
  CHECK(contains(experts, "4 data ranks"));
  CHECK(contains(message([] {
                   MeshShape{4, 0, 1}.check();
                 }),
                 "parallel.pipeline must be at least 1; got 0"));
  CHECK(contains(message([] { MeshShape{4, 4, 1}.check_layers(3); }), "model.layers = 3"));
  CHECK(contains(message([] { MeshShape{4, 1, 4}.check_experts(6); }), "6 routed experts"));
}

TEST_CASE("batches are cut evenly or refused", "[unit][parallel]") {
  const BatchPlan plan = plan_batch({4, 2, 1}, 24, 3);
  CHECK(plan.per_rank == 12);
  CHECK(plan.accumulation == 4);
  CHECK(plan_batch({2, 1, 1}, 8, 0).micro_batch == 4);
  CHECK(contains(message([] { plan_batch({3, 1, 1}, 8, 0); }), "train.global_batch = 8"));
  CHECK(contains(message([] { plan_batch({2, 1, 1}, 8, 3); }), "train.micro_batch = 3"));
  CHECK(contains(message([] { plan_batch({2, 1, 1}, 8, -4); }), "train.micro_batch = -4"));
}

TEST_CASE("mesh groups", "[mpi]") {
  for (const std::int64_t pipeline : {1, 2}) {
    for (const std::int64_t expert : {1, 2}) {
      if (world().size() % (pipeline * expert) != 0) {
        CHECK_FALSE(message([&] { Mesh(world(), pipeline, expert); }).empty());
        continue;
      }
      const Mesh mesh(world(), pipeline, expert);
      const MeshShape& shape = mesh.shape();
      const std::int64_t rank = world().rank();
      CHECK(mesh.data().size() == shape.data());
      CHECK(mesh.expert().size() == expert);
      CHECK(mesh.expert_data().size() == shape.expert_data());
      CHECK(mesh.pipeline().size() == pipeline);
      CHECK((mesh.stage() * shape.expert_data() + mesh.expert_data().rank()) * expert +
                mesh.expert().rank() ==
            rank);
      CHECK(mesh.data().rank() == rank % shape.data());
      // Each group holds the ranks it should: their numbers, in order.
      CHECK(mesh.data().all_gather(rank).front() == mesh.stage() * shape.data());
      CHECK(mesh.expert().all_gather(rank).front() == rank - mesh.expert().rank());
      CHECK(mesh.expert_data().all_gather(rank).front() ==
            mesh.stage() * shape.data() + mesh.expert().rank());
      CHECK(mesh.pipeline().all_gather(rank).back() ==
            (pipeline - 1) * shape.data() + mesh.data().rank());
    }
  }
}

TEST_CASE("parameters are sharded by kind and start from the same numbers", "[mpi]") {
  const std::int64_t expert = world().size() % 2 == 0 ? 2 : 1;
  const Mesh mesh(world(), 1, expert);
  ParameterStore whole(7, DType::f32);
  ParameterStore sharded(7, DType::f32, mesh.shard_policy());
  const auto make = [](ParameterStore& store, const char* name, ParameterKind kind) -> Parameter& {
    return store.create(name, kind, {13, 3}, Initializer::normal(1.0));
  };
  make(whole, "table", ParameterKind::table);
  make(whole, "experts", ParameterKind::expert);
  const Parameter& table = make(sharded, "table", ParameterKind::table);
  const Parameter& experts = make(sharded, "experts", ParameterKind::expert);
  CHECK(table.shard.count == shard(13, mesh.data().size(), mesh.data().rank()).count);
  CHECK(experts.shard.count == shard(13, mesh.expert().size(), mesh.expert().rank()).count);
  CHECK(make(sharded, "matrix", ParameterKind::matrix).shard.count == 13);
  for (const Parameter* p : {&table, &experts}) {
    const Tensor rows =
        whole.find(p->name).value.slice(p->shard.first, p->shard.first + p->shard.count);
    CHECK(p->value.to_vector<float>() == rows.to_vector<float>());
  }
}
