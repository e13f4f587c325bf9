#include "framework/telemetry/metrics.h"

#include <chrono>
#include <filesystem>

#include "framework/telemetry/json_lines.h"
#include "framework/telemetry/tensorboard.h"

namespace fulcrum::telemetry {
namespace {

double wall_clock() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

Metrics::Metrics(const std::string& run_dir, std::int64_t first_step) {
  const std::filesystem::path folder(run_dir);
  add(std::make_unique<JsonLines>(folder / "metrics.jsonl", first_step));
  add(std::make_unique<TensorBoard>(folder / "tensorboard", first_step));
}

void Metrics::log(std::int64_t step, const std::vector<Metric>& metrics) {
  if (sinks_.empty()) return;
  const double now = wall_clock();
  for (const auto& sink : sinks_) sink->log(step, now, metrics);
}

void Metrics::event(std::int64_t step, std::string_view kind, std::string_view text) {
  if (sinks_.empty()) return;
  const double now = wall_clock();
  for (const auto& sink : sinks_) sink->event(step, now, kind, text);
}

}  // namespace fulcrum::telemetry
