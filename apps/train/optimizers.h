#pragma once
// Which optimizer each parameter gets:
//
//   tables                               RowAdam, at lr · table.lr_multiplier
//   matrices and experts                 optimizer.kind
//   embedding, head, router and vectors  AdamW

#include <memory>
#include <vector>

#include "apps/train/config.h"
#include "framework/nn/parameter.h"
#include "framework/optim/optimizer.h"
#include "framework/optim/schedule.h"

namespace fulcrum::apps {

// AdamW comes in up to `parts` pieces of about the same size, in order of creation.
std::vector<std::unique_ptr<Optimizer>> make_optimizers(const OptimizerConfig& config,
                                                        const ParameterStore& store,
                                                        std::size_t parts = 1);

Schedule make_schedule(const TrainConfig& config);

}  // namespace fulcrum::apps
