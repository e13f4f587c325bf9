#pragma once
// The part of a training step that computes: from the token ids of the global batch to complete
// gradients and what the step reports.
//
// On a GPU nothing in it waits for the device, so that after a few steps it is captured as one CUDA
// graph and replayed (train.cuda_graph). Steps whose shapes on the device change from batch to
// batch are not captured: those of tables that several ranks share.

#include <cstdint>
#include <vector>

#include "apps/train/config.h"
#include "apps/train/step_report.h"
#include "apps/train/training_state.h"
#include "data/batch.h"
#include "framework/core/cuda_graph.h"
#include "framework/core/upload.h"
#include "framework/telemetry/region_timer.h"
#include "framework/telemetry/step_timer.h"
#include "parallel/mesh.h"

namespace fulcrum::apps {

class GradientStep {
 public:
  GradientStep(const ExperimentConfig& config, const parallel::Mesh& mesh, TrainingState& state,
               telemetry::StepTimer& timer);

  // Starts the step on this rank's micro-batches, host tensors, as many in every step. On a GPU it
  // returns while the device computes. Collective.
  void start(const std::vector<data::Batch>& micro_batches);
  // Waits for it. The gradients are complete; the report has what the ranks found together.
  // `signal`, of this rank, travels with it. Collective.
  StepReport finish(int signal);
  // Where the time of the last finished step's computation went, on the device.
  telemetry::RegionTimer::Seconds region_seconds() const { return regions_.seconds(); }

 private:
  struct Input {
    Upload ids, targets, document_start;
    data::Batch batch;
    data::Batch host;
  };

  void compute();
  // What the micro-batches reported, [1] each.
  struct Readings {
    std::vector<Tensor> nll, loss, gates, touched_rows, dropped_slots, square_sums;
    std::vector<Tensor> all() const;
  };
  Tensor stacked_expert_load() const;

  const ExperimentConfig& config_;
  const parallel::Mesh& mesh_;
  TrainingState& state_;
  telemetry::StepTimer& timer_;
  std::vector<Input> inputs_;
  Readings readings_;
  Tensor scalars_;      // f64: Readings::all, in order
  Tensor expert_load_;  // i64 [mixtures, experts], of this rank
  telemetry::RegionTimer regions_;
  CudaGraph graph_;
  std::int64_t eager_steps_ = 0;
};

}  // namespace fulcrum::apps
