#pragma once
// One attempt at one point: its process, time limit, heartbeat and outcome.

#include <optional>
#include <string>

#include "apps/sweep/point_state.h"
#include "apps/sweep/process.h"

namespace fulcrum::apps {

class Attempt {
 public:
  // Starts the process and writes the state `running`. `program` is the fulcrum executable.
  Attempt(const Manifest& manifest, const PlannedPoint& point, const std::string& program);

  // The new state once the process has ended; it is also on disk. Keeps the heartbeat, and ends a
  // process that exceeds its time: SIGTERM, so that it may write a checkpoint, then SIGKILL after
  // the grace time. mpirun has the grace time to end after it said that a rank was killed: for
  // ranks that died while they started, Open MPI waits for ever. The status is `pending` when the
  // attempt was stopped.
  std::optional<PointState> poll();
  void stop();  // SIGTERM; SIGKILL after the grace time
  void kill();

  const PlannedPoint& point() const { return *point_; }
  double seconds() const { return process_.seconds(); }

 private:
  PointState outcome(const Ending& ending) const;
  void watch_launcher(double now);

  const Manifest* manifest_;
  const PlannedPoint* point_;
  PointState state_;
  Process process_;
  bool stopped_ = false, timed_out_ = false;
  double stop_time_ = 0.0;
  double next_heartbeat_ = 0.0;
  double next_look_ = 0.0;
  std::optional<double> rank_lost_;  // when mpirun was seen to say so
  bool launcher_hung_ = false;
};

// The arguments of an attempt.
std::vector<std::string> command_of(const Manifest& manifest, const PlannedPoint& point,
                                    const std::string& program);

}  // namespace fulcrum::apps
