#pragma once
// Numbers of a run, written as they happen to every place that shows them.
//
//   Metrics metrics(run_dir, first_step);
//   metrics.log(step, {{"loss", loss}, {"learning_rate", lr}});
//
// writes RUN/metrics.jsonl (json_lines.h) and RUN/tensorboard/events.out.tfevents.…
// (tensorboard.h). Names with a slash, such as "validation/loss", are grouped by TensorBoard. One
// rank of a run opens the files; the others hold a Metrics made without arguments, which discards
// everything.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace fulcrum::telemetry {

struct Metric {
  std::string name;
  double value = 0.0;
};

// One place where metrics go.
class MetricSink {
 public:
  virtual ~MetricSink() = default;
  // wall_time: seconds since 1970. What is logged has reached the system when the call returns.
  virtual void log(std::int64_t step, double wall_time, const std::vector<Metric>& metrics) = 0;
  // Something that happened at a step and is no number: "skipped", "checkpoint".
  virtual void event(std::int64_t step, double wall_time, std::string_view kind,
                     std::string_view text) = 0;
};

class Metrics {
 public:
  Metrics() = default;
  // Makes the folder if need be. A run that is resumed gives the first step that it will compute:
  // what an earlier process logged for that step and later ones is dropped, so that every step
  // appears once.
  explicit Metrics(const std::string& run_dir, std::int64_t first_step = 0);

  void add(std::unique_ptr<MetricSink> sink) { sinks_.push_back(std::move(sink)); }
  // Throws IoError when a file cannot be written.
  void log(std::int64_t step, const std::vector<Metric>& metrics);
  void event(std::int64_t step, std::string_view kind, std::string_view text);

 private:
  std::vector<std::unique_ptr<MetricSink>> sinks_;
};

}  // namespace fulcrum::telemetry
