#pragma once
// What an experiment is and costs, before it runs.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "apps/plan/memory.h"
#include "apps/train/config.h"
#include "models/budget_solver.h"
#include "parallel/mesh.h"

namespace fulcrum::apps {

struct Plan {
  std::string config_hash;        // of the experiment as configured
  ExperimentConfig experiment;    // vocabulary filled in
  models::BudgetSolution budget;  // what is built
  parallel::MeshShape mesh;
  parallel::BatchPlan batch;
  RankMemory memory;
  double flops_per_token = 0.0;  // forward and backward

  std::int64_t tokens_per_step() const {
    return experiment.train.global_batch * experiment.train.sequence_length;
  }
  double tokens() const {
    return static_cast<double>(tokens_per_step()) * static_cast<double>(experiment.train.steps);
  }
};

// `vocabulary: 0` is replaced by the tokenizer's from the prepared folder. Throws UserError when
// the budget, the mesh or the batch cannot be, IoError when the folder cannot be read.
Plan make_plan(ExperimentConfig experiment, std::int64_t ranks);

nlohmann::ordered_json to_json(const Plan& plan);
std::string to_text(const Plan& plan);
// One line a tensor: name, shape, elements.
std::string tensors_text(const Plan& plan);

}  // namespace fulcrum::apps
