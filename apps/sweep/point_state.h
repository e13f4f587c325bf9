#pragma once
// What happened to a point: DIR/points/ID/state.json, replaced whole at every change and at each
// heartbeat.

#include <filesystem>
#include <optional>
#include <string>

#include "apps/sweep/manifest.h"
#include "framework/core/error.h"

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

// A run folder that holds the result of another configuration than the point's.
struct ForeignResult : IoError {
  using IoError::IoError;
};

// The loss in run/result.json. Throws ForeignResult when its config_hash is not the point's, IoError
// when the file is missing or torn, or its loss is not finite.
double read_result(const Manifest& manifest, const PlannedPoint& point);

// The state as far as the result bears it out: a point that is said to be done is pending when its
// result cannot be read, and failed when it is another configuration's.
PointState checked_state(const Manifest& manifest, const PlannedPoint& point);

// Runs that are done, by curve, and the planned ones that are not. In log-linear fits x is as the
// axis gives it.
Dataset read_sweep(const Manifest& manifest);

std::string utc_now();
std::string host_name();

}  // namespace fulcrum::apps
