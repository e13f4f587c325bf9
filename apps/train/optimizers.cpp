#include "apps/train/optimizers.h"

#include "framework/optim/adamw.h"
#include "framework/optim/muon.h"
#include "framework/optim/row_adam.h"

namespace fulcrum::apps {
namespace {

ScheduleShape shape_of(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::constant:
      return ScheduleShape::constant;
    case ScheduleKind::step:
      return ScheduleShape::step;
    case ScheduleKind::cosine:
      return ScheduleShape::cosine;
    case ScheduleKind::wsd:
      return ScheduleShape::wsd;
  }
  throw InternalError("unknown schedule");
}

// Cuts a list into up to `parts` pieces of about the same size, alike on all ranks; none is empty,
// unless all are.
std::vector<std::vector<Parameter*>> cut(const std::vector<Parameter*>& parameters,
                                         std::size_t parts) {
  double total = 0.0;
  for (const Parameter* p : parameters) total += static_cast<double>(p->value.numel());
  const double each = total / static_cast<double>(parts);
  std::vector<std::vector<Parameter*>> pieces(1);
  double done = 0.0;
  for (Parameter* p : parameters) {
    const bool full = done >= each * static_cast<double>(pieces.size());
    if (full && !pieces.back().empty() && pieces.size() < parts) pieces.emplace_back();
    pieces.back().push_back(p);
    done += static_cast<double>(p->value.numel());
  }
  return pieces;
}

}  // namespace

std::vector<std::unique_ptr<Optimizer>> make_optimizers(const OptimizerConfig& config,
                                                        const ParameterStore& store,
                                                        std::size_t parts) {
  std::vector<Parameter*> tables, matrices, others;
  for (const auto& parameter : store.parameters()) {
    const bool matrix =
        parameter->kind == ParameterKind::matrix || parameter->kind == ParameterKind::expert;
    if (parameter->kind == ParameterKind::table) {
      tables.push_back(parameter.get());
    } else if (matrix && config.kind == OptimizerKind::muon) {
      matrices.push_back(parameter.get());
    } else {
      others.push_back(parameter.get());
    }
  }
  std::vector<std::unique_ptr<Optimizer>> optimizers;
  for (auto& piece : cut(others, parts)) {
    optimizers.push_back(std::make_unique<AdamW>(
        piece, AdamWOptions{config.beta1, config.beta2, config.eps, config.weight_decay,
                            config.moments, store.seed()}));
  }
  if (!matrices.empty()) {
    optimizers.push_back(std::make_unique<Muon>(
        matrices, MuonOptions{config.muon.momentum, config.muon.nesterov, config.muon.iterations,
                              config.muon.update_rms, config.weight_decay}));
  }
  if (!tables.empty()) {
    optimizers.push_back(std::make_unique<RowAdam>(
        tables, RowAdamOptions{config.table.lr_multiplier, config.table.beta1, config.table.beta2,
                               config.table.eps, config.table.weight_decay}));
  }
  return optimizers;
}

Schedule make_schedule(const TrainConfig& config) {
  const ScheduleConfig& s = config.schedule;
  return {shape_of(s.kind), config.optimizer.lr, config.steps, s.warmup_steps,
          s.final_fraction, s.decay_fraction,    s.milestones, s.gamma};
}

}  // namespace fulcrum::apps
