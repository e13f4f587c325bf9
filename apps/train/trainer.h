#pragma once
// Trains one experiment: micro-batches, reduction, clipping, optimizers, validation, checkpoints,
// telemetry. Every rank of the job has one.

#include <memory>
#include <string>
#include <vector>

#include "apps/train/checkpoints.h"
#include "apps/train/config.h"
#include "apps/train/gradient_step.h"
#include "apps/train/run_folder.h"
#include "apps/train/step_report.h"
#include "apps/train/stop_signal.h"
#include "apps/train/training_state.h"
#include "data/prepared_data.h"
#include "data/sampler.h"
#include "framework/core/upload.h"
#include "framework/optim/schedule.h"
#include "framework/telemetry/metrics.h"
#include "framework/telemetry/progress.h"
#include "framework/telemetry/step_timer.h"
#include "parallel/mesh.h"

namespace fulcrum::apps {

// Whether a run goes on from a checkpoint of its folder.
struct Resume {
  // Without it a folder that holds checkpoints is refused; with it a run begins when there is none.
  bool wanted = false;
  std::string checkpoint;  // "step-400"; empty: the newest
};

// Bytes of the memory pool, of the device that trains, on the rank that took most.
struct RankMemoryUse {
  std::int64_t weights = 0;
  std::int64_t gradients = 0;    // in their reduction buckets
  std::int64_t optimizer = 0;    // its state
  std::int64_t activations = 0;  // and all else that came on top at the peak: rows of tables and
                                 // their gradients, buffers, the copy that a save writes
  std::int64_t peak = 0;         // most in use at once: the sum
  std::int64_t reserved = 0;     // taken from the system
};

struct TrainResult {
  bool finished = false;  // false: stopped by a signal, with a checkpoint
  std::int64_t step = 0;
  double train_loss = 0.0;       // mean over the last steps
  double validation_loss = 0.0;  // NaN without a validation split
  RankMemoryUse memory;
};

class Trainer {
 public:
  // The model's budget is solved and its vocabulary known; `config_hash` is that of the experiment
  // before. Collective.
  Trainer(const ExperimentConfig& config, const std::string& config_hash,
          const parallel::Mesh& mesh, const data::PreparedData& data,
          ParameterStore::Placement placement, const Resume& resume);
  TrainResult run();

 private:
  // This rank's micro-batches of a step.
  std::vector<data::Batch> load(std::int64_t step);
  telemetry::RegionTimer::Seconds device_seconds() const;
  void apply(StepReport& report);
  void publish(const StepReport& report);
  double validate();
  bool save_is_due() const;
  void save();
  void note_save(std::optional<std::int64_t> step);
  RankMemoryUse memory_use(std::int64_t state) const;
  void write_result(const TrainResult& result, bool trained) const;
  bool is_root() const { return mesh_.world().rank() == 0; }

  ExperimentConfig config_;
  const parallel::Mesh& mesh_;
  parallel::BatchPlan batches_;
  std::unique_ptr<RunFolder> folder_;  // of rank 0
  data::Windows train_windows_;
  data::Windows valid_windows_;
  data::Sampler sampler_;
  Schedule schedule_;
  TrainingState state_;
  RunIdentity identity_;
  Checkpoints checkpoints_;
  std::int64_t saved_step_ = 0;
  double saved_at_ = 0.0;  // state_.seconds
  telemetry::Metrics metrics_;
  std::unique_ptr<telemetry::Progress> progress_;
  telemetry::StepTimer timer_;
  GradientStep gradients_;
  telemetry::RegionTimer optimizer_timer_;
  Upload expert_load_;  // of all mixtures, summed over ranks
  StopSignal stop_;
};

}  // namespace fulcrum::apps
