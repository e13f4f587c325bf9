#pragma once
// The optimizers' part of models/step_work.h: the gradient's norm, AdamW, Muon and, of a memory's
// tables, the rows that the step used.

#include <vector>

#include "models/step_work.h"

namespace fulcrum::models {

std::vector<OperatorWork> optimizer_work(const ModelConfig& model, const StepShape& shape);

}  // namespace fulcrum::models
