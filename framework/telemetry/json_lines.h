#pragma once
// metrics.jsonl: one JSON object a line and a log call.
//
//   {"step":120,"time":1764000000.25,"loss":3.21,"tokens_per_second":15300.0}
//   {"step":121,"time":1764000001.5,"event":"skipped","text":"gradient norm is not finite"}
//
// Numbers keep all their digits. JSON has no NaN and no infinity: these are written as null.

#include <filesystem>

#include "framework/core/file.h"
#include "framework/telemetry/metrics.h"

namespace fulcrum::telemetry {

class JsonLines : public MetricSink {
 public:
  // Appends to an existing file, after removing the lines of first_step and later ones, and a last
  // line that a kill cut short.
  explicit JsonLines(const std::filesystem::path& path, std::int64_t first_step = 0);

  void log(std::int64_t step, double wall_time, const std::vector<Metric>& metrics) override;
  void event(std::int64_t step, double wall_time, std::string_view kind,
             std::string_view text) override;

 private:
  OutputFile file_;
};

}  // namespace fulcrum::telemetry
