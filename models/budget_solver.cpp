#include "models/budget_solver.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "framework/core/error.h"
#include "models/config_parser.h"

namespace fulcrum::models {
namespace {

constexpr std::int64_t kSmallestTable = 2;  // rows of a head

// Segmentation written out: the same model with `experts` routed experts.
ModelConfig with_experts(ModelConfig model, std::int64_t experts) {
  auto& moe = model.moe;
  moe.top_k = moe.active();
  moe.expert_width = moe.width();
  moe.segmentation = 1;
  moe.experts = experts;
  model.budget.rho.reset();
  return model;
}

std::int64_t experts_at(const MoeConfig& moe, double rho) {
  const double kept = rho * static_cast<double>(moe.routed() - moe.active());
  const std::int64_t experts = moe.active() + std::llround(kept);
  if (moe.groups == 1) return experts;
  const std::int64_t least = (moe.active() + moe.groups - 1) / moe.groups;
  const auto groups = static_cast<double>(moe.groups);
  return moe.groups *
         std::max<std::int64_t>(least, std::llround(static_cast<double>(experts) / groups));
}

std::int64_t table_parameters(DseConfig dse, std::int64_t rows_per_head) {
  dse.rows_per_head = {rows_per_head};
  const auto rows = table_rows(dse);
  return dse.row_width() * std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
}

// Rows per head whose tables come nearest to `target` parameters; the count grows with the rows.
std::int64_t fit_rows(const DseConfig& dse, std::int64_t target) {
  const auto layers = static_cast<std::int64_t>(dse.layers.size());
  std::int64_t low = kSmallestTable;
  std::int64_t high = std::max(low + 1, target / (layers * dse.width) + 2);
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (table_parameters(dse, middle) <= target ? low : high) = middle;
  }
  const std::int64_t below = target - table_parameters(dse, low);
  const std::int64_t above = table_parameters(dse, high) - target;
  return above < below ? high : low;
}

double share_of_experts(const ModelConfig& model, const ParameterCount& count) {
  if (!model.dse || model.moe.experts == 0) return 1.0;
  const std::int64_t inactive =
      count.routed_experts / model.moe.routed() * (model.moe.routed() - model.moe.active());
  return static_cast<double>(inactive) / static_cast<double>(count.p_sparse());
}

void pay_with_experts(BudgetSolution& solution, double rho, const ModelConfig& model) {
  const std::string wanted = fmt::format("model.budget.rho: {}", rho);
  if (solution.experts >= solution.experts_full)
    throw UserError(
        fmt::format("{} keeps all {} routed experts of a layer, so that nothing pays for the "
                    "memory; allowed: 1, or "
                    "values that remove an expert ({} {} active, groups {})",
                    wanted, solution.experts_full, solution.experts_full, model.moe.active(),
                    model.moe.groups));

  DseConfig& dse = *solution.model.dse;
  dse.rows_per_head = {kSmallestTable};
  const std::int64_t smallest = count_parameters(solution.model).total;
  const std::int64_t left = solution.full.total - smallest + table_parameters(dse, kSmallestTable);
  if (smallest > solution.full.total)
    throw UserError(fmt::format(
        "{} frees {} parameters, less than the smallest memory has ({}); lower rho or "
        "model.dse.width {}",
        wanted, solution.full.total - smallest + count_parameters(solution.model).memory,
        count_parameters(solution.model).memory, dse.width));
  dse.rows_per_head = {fit_rows(dse, left)};
}

}  // namespace

BudgetSolution plan_budget(const ModelConfig& model) {
  BudgetSolution solution;
  solution.experts_full = solution.experts = model.moe.routed();
  if (!model.budget.rho) {
    solution.model = model;
    solution.full = solution.count = count_parameters(model);
    solution.rho = share_of_experts(model, solution.count);
    return solution;
  }
  const double rho = *model.budget.rho;
  ModelConfig full = with_experts(model, solution.experts_full);
  full.dse.reset();
  solution.full = count_parameters(full);
  if (rho == 1.0) {
    solution.model = full;
  } else {
    solution.experts = experts_at(model.moe, rho);
    solution.model = with_experts(model, solution.experts);
    pay_with_experts(solution, rho, model);
  }
  solution.count = count_parameters(solution.model);
  solution.rho = static_cast<double>(solution.experts - model.moe.active()) /
                 static_cast<double>(solution.experts_full - model.moe.active());
  solution.deviation = static_cast<double>(solution.count.total - solution.full.total) /
                       static_cast<double>(solution.full.total);
  if (std::abs(solution.deviation) > kBudgetTolerance)
    throw UserError(fmt::format(
        "model.budget.rho: {} reaches {} parameters, {:+.3f} % off the {} at rho 1; allowed: "
        "{:.1f} %; the "
        "tables are too small for a finer step (model.dse.width {}, {} rows per head)",
        rho, solution.count.total, 100 * solution.deviation, solution.full.total,
        100 * kBudgetTolerance, model.dse->width, solution.model.dse->rows_per_head.front()));
  validate(solution.model);
  return solution;
}

ModelConfig solve_budget(const ModelConfig& model) { return plan_budget(model).model; }

}  // namespace fulcrum::models
