#pragma once
// Finds the number of experts and the table sizes for a given ρ (models/budget.h) at fixed P_tot.

#include <cstdint>

#include "models/budget.h"
#include "models/config.h"

namespace fulcrum::models {

// Largest |P − P_full| / P_full of all parameters that a solution may have. It is reached only by
// tables of a few rows: one step of the search moves every head to its next prime.
inline constexpr double kBudgetTolerance = 1e-3;

struct BudgetSolution {
  ModelConfig model;  // what to build: budget.rho absent, segmentation 1, table sizes set
  double rho = 1.0;   // reached: (experts − active) / (experts_full − active)
  std::int64_t experts_full = 0;  // routed experts of a layer at ρ = 1
  std::int64_t experts = 0;
  ParameterCount full;     // at ρ = 1
  ParameterCount count;    // of `model`
  double deviation = 0.0;  // count.total / full.total − 1
};

// With budget.rho absent the model comes back as it is and rho is the share that its tables leave
// to experts: (inactive routed experts) / P_sparse of the model, as the paper prints it (1 without
// a memory).
//
// With budget.rho = ρ, E_full routed experts and k active ones (both after segmentation):
//   E = k + round(ρ · (E_full − k)), to a multiple of moe.groups
//   the E_full − E experts of every layer, with their router rows, pay for the memory: first its
//   projections, norms and convolutions, then rows, the same number per head before the prime
//   search, so that all parameters come as close as possible to those at ρ = 1
// ρ = 1 is pure MoE: the memory is dropped. Throws UserError when ρ rounds to no expert removed,
// when the freed parameters do not pay for the smallest memory, or when the tolerance is missed.
BudgetSolution plan_budget(const ModelConfig& model);

ModelConfig solve_budget(const ModelConfig& model);

}  // namespace fulcrum::models
