#include "apps/train/training_state.h"

#include "apps/train/placement.h"
#include "framework/core/memory_pool.h"
#include "framework/core/region.h"

namespace fulcrum::apps {
namespace {

// In how many parts AdamW updates what ranks divide: values of one travel while the next is
// updated.
constexpr std::size_t kUpdateParts = 8;

bool divides_optimizer(const ExperimentConfig& config, const ParameterStore& store,
                       const parallel::Mesh& mesh) {
  return divides_optimizer(config.parallel.zero, store.device(), mesh.shape());
}

}  // namespace

TrainingState::TrainingState(const ExperimentConfig& config,
                             const models::HashedVocabulary& vocabulary, const parallel::Mesh& mesh,
                             ParameterStore::Placement placement)
    : store(config.train.seed, placement, mesh.shard_policy()),
      model(config.model, store, vocabulary, mesh.data()),
      sharding(store, mesh,
               {.divide = divides_optimizer(config, store, mesh),
                .whole_matrices = config.train.optimizer.kind == OptimizerKind::muon}),
      reducer(store, mesh, config.parallel.bucket_mib, &sharding),
      optimizers(make_optimizers(config.train.optimizer, store,
                                 divides_optimizer(config, store, mesh) ? kUpdateParts : 1)),
      guard(config.train.guard) {}

void TrainingState::update(double learning_rate, double gradient_scale) {
  {
    const InRegion region(Region::optimizer);
    for (const auto& optimizer : optimizers) {
      optimizer->step(learning_rate, gradient_scale);
      sharding.gather(optimizer->parameters());
    }
  }
  const InRegion region(Region::communication);
  sharding.finish();
}

std::int64_t TrainingState::weight_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& p : store.parameters()) {
    bytes += pooled_bytes(p->value.bytes(), store.device());
    if (p->rounded()) bytes += pooled_bytes(p->master.bytes(), store.device());
  }
  return bytes;
}

std::int64_t TrainingState::optimizer_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& optimizer : optimizers) {
    for (const StateTensor& s : optimizer->state()) {
      bytes += pooled_bytes(s.value.bytes(), store.device());
    }
  }
  return bytes;
}

}  // namespace fulcrum::apps
