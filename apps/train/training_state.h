#pragma once
// Everything that training changes, and a checkpoint therefore holds.

#include <cstdint>
#include <memory>
#include <vector>

#include "apps/train/config.h"
#include "apps/train/optimizers.h"
#include "apps/train/step_guard.h"
#include "models/language_model.h"
#include "parallel/gradient_reducer.h"
#include "parallel/mesh.h"
#include "parallel/optimizer_sharding.h"

namespace fulcrum::apps {

struct TrainingState {
  // The model's budget is solved and its vocabulary known. Collective.
  TrainingState(const ExperimentConfig& config, const models::HashedVocabulary& vocabulary,
                const parallel::Mesh& mesh, ParameterStore::Placement placement);

  // One step of every optimizer; values are whole on every rank afterwards. Collective.
  void update(double learning_rate, double gradient_scale);

  // What they take of the device's memory pool: values and masters, the optimizers' state.
  std::int64_t weight_bytes() const;
  std::int64_t optimizer_bytes() const;

  ParameterStore store;
  models::LanguageModel model;
  parallel::OptimizerSharding sharding;
  parallel::GradientReducer reducer;
  std::vector<std::unique_ptr<Optimizer>> optimizers;
  StepGuard guard;
  std::vector<double> recent_losses;  // of the last steps, oldest first
  std::int64_t step = 0;              // steps done
  std::int64_t tokens = 0;            // trained on
  double seconds = 0.0;               // spent in steps, over all processes of the run
};

}  // namespace fulcrum::apps
