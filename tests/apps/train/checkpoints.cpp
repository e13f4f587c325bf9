// Checkpoints hold masters, whatever values are computed with and wherever they live.

#include "tests/apps/train/checkpoints.h"

#include "parallel/mesh.h"
#include "tests/apps/train/experiment.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/parallel/world.h"

using namespace fulcrum;
using namespace fulcrum::testing;
using apps::OptimizerKind;
using apps::TrainingState;

namespace {

// From one placement to another and back, bit for bit.
void check_moves(ParameterStore::Placement first, ParameterStore::Placement second) {
  const TemporaryFolder folder;
  const parallel::Mesh mesh;
  for (const auto& [kind, moments] : {std::pair{OptimizerKind::adamw, DType::f32},
                                      {OptimizerKind::muon, DType::f32},
                                      {OptimizerKind::adamw, DType::bf16}}) {
    auto config = small_experiment(kind);
    config.train.optimizer.moments = moments;
    const auto path = [&, muon = kind == OptimizerKind::muon, dtype = moments](const char* name) {
      return folder / (name + std::string(name_of(dtype)) + (muon ? "-muon" : ""));
    };
    TrainingState a(config, {}, mesh, first);
    train_randomly(a, 3);
    a.tokens = 7;
    a.recent_losses = {1.5, 2.5};
    save(a, path("a"), mesh.world());

    TrainingState b(config, {}, mesh, second);
    restore(b, path("a"), mesh.world());
    CHECK(b.step == 3);
    CHECK(b.tokens == 7);
    CHECK(b.recent_losses == a.recent_losses);
    for (const auto& optimizer : b.optimizers) CHECK(optimizer->steps() == 3);
    for (const auto& p : b.store.parameters()) {
      INFO(p->name);
      CHECK(same_bytes(p->master, a.store.find(p->name).master));
      CHECK(same_bytes(p->value, p->master.to(p->value.dtype())));
    }
    save(b, path("b"), mesh.world());
    require_same_tensors(path("a"), path("b"));

    // Both go on; the one that stopped on the device where it started goes on with the same bits.
    TrainingState c(config, {}, mesh, first);
    restore(c, path("b"), mesh.world());
    train_randomly(a, 2);
    train_randomly(c, 2);
    save(a, path("straight"), mesh.world());
    save(c, path("resumed"), mesh.world());
    require_same_tensors(path("straight"), path("resumed"));
  }
}

}  // namespace

TEST_CASE("a checkpoint moves between plain and rounded parameters", "[unit][checkpoint]") {
  check_moves({DType::f32, {}}, {DType::bf16, {}});
}

TEST_CASE("a run goes on with moments of the other kind", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  const parallel::Mesh mesh;
  auto config = small_experiment(OptimizerKind::adamw);
  const auto state_of = [&](DType moments) {
    config.train.optimizer.moments = moments;
    return std::make_unique<TrainingState>(config, models::HashedVocabulary{}, mesh,
                                           ParameterStore::Placement{DType::f32, {}});
  };
  const auto a = state_of(DType::f32);
  train_randomly(*a, 3);
  save(*a, folder / "f32", mesh.world());
  const auto b = state_of(DType::bf16);
  restore(*b, folder / "f32", mesh.world());
  save(*b, folder / "bf16", mesh.world());
  const auto c = state_of(DType::f32);
  restore(*c, folder / "bf16", mesh.world());
  const auto x = a->optimizers.front()->state();
  const auto y = b->optimizers.front()->state();
  const auto z = c->optimizers.front()->state();
  for (std::size_t i = 0; i < x.size(); ++i) {
    INFO(x[i].name);
    CHECK(same_bytes(y[i].value, x[i].value.to(y[i].value.dtype())));
    CHECK(same_bytes(z[i].value, y[i].value.to(DType::f32)));
  }
  CHECK(b->optimizers.front()->steps() == 3);
}

TEST_CASE("a checkpoint moves between the CPU and CUDA", "[gpu][checkpoint]") {
  const Device device = cuda_device();
  check_moves({DType::f32, {}}, {DType::bf16, device});
  check_moves({DType::bf16, device}, {DType::f32, {}});
}

TEST_CASE("ranks that divide the optimizer's work write what one rank writes",
          "[mpi][checkpoint]") {
  const parallel::Communicator& ranks = world();
  const parallel::Mesh mesh(ranks, 1, 1);
  auto config = small_experiment(OptimizerKind::adamw);
  // All ranks write to the folder of rank 0.
  const TemporaryFolder own;
  const std::filesystem::path folder = ranks.broadcast(own.path().string(), 0);

  for (const auto& [dtype, moments] :
       {std::pair{DType::f32, DType::f32}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}}) {
    config.train.optimizer.moments = moments;
    const std::string kind = fmt::format("-{}-{}", dtype, moments);
    const auto path = [&](const char* part) { return folder / (part + kind); };
    TrainingState whole(config, {}, mesh, {dtype, {}});
    train_randomly(whole, 3);
    save(whole, path("whole"), ranks);

    const auto divide = [&](TrainingState& state) {
      for (const auto& p : state.store.parameters()) {
        const RowRange rows = parallel::shard(p->value.dim(0), ranks.size(), ranks.rank());
        keep_master_rows(*p, rows.first, rows.count);
      }
      state.optimizers = apps::make_optimizers(config.train.optimizer, state.store);
    };
    TrainingState divided(config, {}, mesh, {dtype, {}});
    divide(divided);
    train_randomly(divided, 3);
    save(divided, path("divided"), ranks);
    require_same_tensors(path("whole"), path("divided"));

    TrainingState restored(config, {}, mesh, {dtype, {}});
    divide(restored);
    restore(restored, path("divided"), ranks);
    for (const auto& p : restored.store.parameters()) {
      INFO(p->name);
      CHECK(same_bytes(p->value, whole.store.find(p->name).value));
      CHECK(same_bytes(p->master, divided.store.find(p->name).master));
    }
    save(restored, path("again"), ranks);
    require_same_tensors(path("whole"), path("again"));
  }
  ranks.barrier();  // nobody removes the folder before
}
