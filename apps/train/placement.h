#pragma once
// Where and in what a rank computes.

#include "apps/train/config.h"
#include "framework/nn/parameter.h"
#include "parallel/mesh.h"

namespace fulcrum::apps {

// Chooses the device (apps/device_choice.h) and the precision: on a CPU bf16 is a property of
// matrix products (ops::set_matmul_precision), on a GPU of matrices and activations.
ParameterStore::Placement place(const ExperimentConfig& config, int local_rank);

// Whether data ranks divide the optimizer's work.
bool divides_optimizer(ZeroStage zero, Device device, const parallel::MeshShape& mesh);

}  // namespace fulcrum::apps
