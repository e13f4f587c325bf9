#pragma once
// A small training state, made without a configuration file, and its way through checkpoints.

#include "apps/train/checkpoints.h"
#include "framework/optim/adamw.h"
#include "tests/framework/optim/reference.h"

namespace fulcrum::testing {

// Experts balanced by bias, so that every kind of tensor but tables occurs.
inline apps::ExperimentConfig small_experiment(apps::OptimizerKind kind) {
  apps::ExperimentConfig config;
  config.model.layers = 2;
  config.model.width = 16;
  config.model.ffn_width = 24;
  config.model.vocabulary = 37;
  config.model.attention.heads = 2;
  config.model.attention.kv_heads = 2;
  config.model.attention.head_dim = 8;
  config.model.moe.experts = 4;
  config.model.moe.top_k = 2;
  config.model.moe.expert_width = 8;
  config.model.moe.leading_dense = 1;
  config.model.moe.balance.bias_rate = 0.001;
  config.train.seed = 5;
  config.train.optimizer.kind = kind;
  return config;
}

inline apps::RunIdentity small_identity() { return {"config", "hash", "numbers", "data"}; }

// Optimizer steps with random gradients, equal on every device.
inline void train_randomly(apps::TrainingState& state, int steps) {
  for (int t = 0; t < steps; ++t, ++state.step) {
    std::uint64_t seed = static_cast<std::uint64_t>(state.step) * 1000;
    for (const auto& p : state.store.parameters()) {
      set_gradient(*p, random_gradient(*p, ++seed, 0.1).to(DType::f32));
    }
    for (const auto& optimizer : state.optimizers) optimizer->step(0.01);
  }
}

inline void save(const apps::TrainingState& state, const std::filesystem::path& folder,
                 const parallel::Communicator& world) {
  apps::Checkpoints checkpoints(folder, 0, world);
  checkpoints.start(state, small_identity());
  checkpoints.wait();
}

inline void restore(apps::TrainingState& state, const std::filesystem::path& folder,
                    const parallel::Communicator& world) {
  apps::Checkpoints(folder, 0, world).restore(state, small_identity(), "");
}

}  // namespace fulcrum::testing
