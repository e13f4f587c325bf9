#pragma once
// What a running sweep prints: a line for every point that ends, and on a terminal a status line
// that is redrawn.

#include <cstdint>
#include <string>

#include "apps/sweep/point_state.h"

namespace fulcrum::apps {

struct SweepCounts {
  std::int64_t total = 0, done = 0, running = 0, failed = 0;
  double seconds_left = -1.0;  // negative: unknown
};

std::string duration_text(double seconds);  // "2 h 05 min", "3 min 20 s", "4.2 s"
std::string status_line(const SweepCounts& counts);

class SweepProgress {
 public:
  explicit SweepProgress(bool quiet);
  ~SweepProgress();
  void ended(const PlannedPoint& point, const PointState& state, double loss, bool again,
             const SweepCounts& counts);
  void update(const SweepCounts& counts);
  void say(const std::string& line);

 private:
  void clear();
  bool quiet_, terminal_;
  std::string drawn_;
};

}  // namespace fulcrum::apps
