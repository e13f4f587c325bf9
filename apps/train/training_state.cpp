#include "apps/train/training_state.h"

namespace fulcrum::apps {

TrainingState::TrainingState(const ExperimentConfig& config,
                             const models::HashedVocabulary& vocabulary, const parallel::Mesh& mesh,
                             ParameterStore::Placement placement)
    : store(config.train.seed, placement, mesh.shard_policy()),
      model(config.model, store, vocabulary, mesh.data()),
      reducer(store, mesh, config.parallel.bucket_mib),
      optimizers(make_optimizers(config.train.optimizer, store)),
      guard(config.train.guard) {}

}  // namespace fulcrum::apps
