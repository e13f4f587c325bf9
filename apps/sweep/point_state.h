#pragma once
// What happened to a point: DIR/points/ID/state.json, replaced whole at every change and at each
// heartbeat.

#include <filesystem>
#include <optional>
#include <string>

#include "apps/sweep/manifest.h"

namespace fulcrum::apps {

enum class PointStatus : std::uint8_t { pending, running, done, failed, timed_out };
const char* name_of(PointStatus status);

struct PointState {
  PointStatus status = PointStatus::pending;
  std::int64_t attempts =
      0;  // that ended by themselves or by the time limit; an interrupted attempt does not count
  double seconds = 0.0;   // of the last attempt
  std::string heartbeat;  // UTC
  std::string message;    // why it failed
  // While running: the process that runs it.
  std::int64_t pid = 0;
  std::string host;
};

PointState read_state(const std::filesystem::path& folder);  // pending when there is no file
void write_state(const std::filesystem::path& folder, PointState state);  // stamps the heartbeat

// The loss in run/result.json. Throws IoError when the file is missing or torn, or its loss is not
// finite. (Its config_hash is not the point's: training hashes the configuration after the data and
// the budget filled it in. A run folder is never shared between points.)
double read_result(const Manifest& manifest, const PlannedPoint& point);

// Runs that are done, by curve, and the planned ones that are not. In log-linear fits x is as the
// axis gives it.
Dataset read_sweep(const Manifest& manifest);

std::string utc_now();
std::string host_name();

}  // namespace fulcrum::apps
