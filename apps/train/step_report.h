#pragma once
// What one training step reports, summed or averaged over ranks.

#include <optional>
#include <string>
#include <vector>

#include "framework/core/tensor.h"
#include "framework/telemetry/metrics.h"
#include "framework/telemetry/region_timer.h"

namespace fulcrum::apps {

struct StepReport {
  double loss = 0.0;           // negative log-likelihood of a token, nats
  double total_loss = 0.0;     // with z-loss and auxiliary losses
  double gradient_norm = 0.0;  // over every kind of parameter, before clipping
  double learning_rate = 0.0;
  double seconds = 0.0;
  std::int64_t tokens = 0;
  double epoch = 0.0;

  Tensor expert_load;  // i64 [mixtures, experts]: tokens of the global batch; undefined without
                       // mixtures
  double dropped_slots = 0.0;
  std::optional<double> gate_mean;  // of the memories
  double touched_rows = 0.0;

  // On a GPU: seconds that the device worked on each region of the model, its optimizer's those of
  // the step before. The rest of `seconds` it was idle.
  std::optional<telemetry::RegionTimer::Seconds> regions;

  std::optional<std::string> skipped;  // why the step changed nothing
  int signal = 0;                      // not 0: a rank was asked to stop
};

// Names as they appear in metrics.jsonl and TensorBoard.
std::vector<telemetry::Metric> metrics_of(const StepReport& report);

}  // namespace fulcrum::apps
