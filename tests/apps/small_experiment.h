#pragma once
// The smallest experiment that has a model: one dense layer, four sequences of six tokens a step.

#include "apps/train/config.h"

namespace fulcrum::testing {

inline apps::ExperimentConfig small_experiment() {
  apps::ExperimentConfig config;
  config.model.layers = 1;
  config.model.width = 8;
  config.model.ffn_width = 16;
  config.model.vocabulary = 32;
  config.model.attention.heads = config.model.attention.kv_heads = 2;
  config.model.attention.head_dim = 4;
  config.train.steps = 10;
  config.train.sequence_length = 6;
  config.train.global_batch = 4;
  return config;
}

}  // namespace fulcrum::testing
