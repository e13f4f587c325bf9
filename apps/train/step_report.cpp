#include "apps/train/step_report.h"

#include <algorithm>
#include <numeric>

namespace fulcrum::apps {
namespace {

// Imbalance: the largest load over the mean; 1 when every expert gets the same.
void add_expert_metrics(const Tensor& loads, std::vector<telemetry::Metric>& metrics) {
  const std::int64_t experts = loads.dim(1);
  double worst = 0.0;
  std::int64_t empty = 0;
  for (std::int64_t i = 0; i < loads.dim(0); ++i) {
    const auto load = loads.slice(i, i + 1).to_vector<std::int64_t>();
    const auto total = std::accumulate(load.begin(), load.end(), std::int64_t{0});
    const std::int64_t largest = *std::max_element(load.begin(), load.end());
    const double imbalance =
        total > 0 ? static_cast<double>(largest * experts) / static_cast<double>(total) : 0.0;
    worst = std::max(worst, imbalance);
    empty += std::count(load.begin(), load.end(), 0);
    metrics.push_back({fmt::format("experts/imbalance_{}", i), imbalance});
  }
  metrics.push_back({"experts/imbalance", worst});
  metrics.push_back({"experts/empty", static_cast<double>(empty)});
}

void add_region_metrics(const telemetry::RegionTimer::Seconds& regions, double seconds,
                        std::vector<telemetry::Metric>& metrics) {
  double busy = 0.0;
  for (int i = 0; i < kRegions; ++i) {
    const double part = regions[static_cast<std::size_t>(i)];
    busy += part;
    if (part > 0.0) {
      metrics.push_back({fmt::format("device/{}", name_of(static_cast<Region>(i))), part});
    }
  }
  metrics.push_back({"device/idle", std::max(seconds - busy, 0.0)});
}

}  // namespace

std::vector<telemetry::Metric> metrics_of(const StepReport& report) {
  std::vector<telemetry::Metric> metrics = {
      {"loss", report.loss},
      {"total_loss", report.total_loss},
      {"learning_rate", report.learning_rate},
      {"gradient_norm", report.gradient_norm},
      {"tokens_per_second", static_cast<double>(report.tokens) / report.seconds},
      {"epoch", report.epoch},
  };
  if (report.expert_load.defined()) {
    add_expert_metrics(report.expert_load, metrics);
    metrics.push_back({"experts/dropped", report.dropped_slots});
  }
  if (report.gate_mean) {
    metrics.push_back({"memory/gate_mean", *report.gate_mean});
    metrics.push_back({"memory/touched_rows", report.touched_rows});
  }
  if (report.regions) add_region_metrics(*report.regions, report.seconds, metrics);
  return metrics;
}

}  // namespace fulcrum::apps
