#pragma once
// Where the time of a training step goes.
//
//   { auto scope = timer.time(Phase::forward); … }
//
// Scopes nest: while an inner scope is open the outer one stands still, so that the phases add up
// to the time measured and an exchange inside the forward pass counts as exchange alone. For the
// training thread only.

#include <array>
#include <chrono>
#include <cstdint>
#include <vector>

#include "framework/telemetry/metrics.h"

namespace fulcrum::telemetry {

enum class Phase : std::uint8_t {
  data,
  forward,
  backward,
  reduce,
  optimizer,
  exchange,
  checkpoint
};
inline constexpr int kPhases = 7;

const char* name_of(Phase phase);

class StepTimer {
 public:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::array<double, kPhases>;

  class Scope {
   public:
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { timer_.leave(); }

   private:
    friend class StepTimer;
    explicit Scope(StepTimer& timer) : timer_(timer) {}
    StepTimer& timer_;
  };

  [[nodiscard]] Scope time(Phase phase);

  // Seconds of each phase since construction or the last take; an open scope counts up to now.
  Seconds seconds() const;
  double seconds(Phase phase) const { return seconds()[static_cast<std::size_t>(phase)]; }
  // seconds(), then starts again from zero.
  Seconds take();

 private:
  void leave();
  void charge();

  Seconds seconds_{};
  std::vector<Phase> open_;
  Clock::time_point since_;
};

// {"time/forward", seconds / steps}, … for the phases that took any time.
std::vector<Metric> phase_metrics(const StepTimer::Seconds& seconds, std::int64_t steps = 1);

}  // namespace fulcrum::telemetry
