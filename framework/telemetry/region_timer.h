#pragma once
// How long the work of each region (core/region.h) takes where it runs.
//
//   timer.begin();  … work in regions …  timer.end();
//   timer.seconds()[region]
//
// Marks are set on the compute stream wherever the region changes: on a GPU the times are the
// device's, and a captured graph sets them anew in every replay.

#include <array>
#include <cstddef>
#include <vector>

#include "framework/core/region.h"
#include "framework/core/stopwatch.h"

namespace fulcrum::telemetry {

class RegionTimer {
 public:
  using Seconds = std::array<double, kRegions>;

  explicit RegionTimer(Device device) : watch_(device) {}

  // From here on the calling thread's regions are timed.
  void begin();
  void end();
  // Of the work between the last begin and end; waits for it. Zeros before the first end.
  Seconds seconds() const;

 private:
  Stopwatch watch_;
  std::vector<Region> regions_;  // from mark i to i + 1
  bool ended_ = false;
};

}  // namespace fulcrum::telemetry
