#include "framework/telemetry/step_timer.h"

#include <string>

namespace fulcrum::telemetry {

const char* name_of(Phase phase) {
  switch (phase) {
    case Phase::data:
      return "data";
    case Phase::forward:
      return "forward";
    case Phase::backward:
      return "backward";
    case Phase::reduce:
      return "reduce";
    case Phase::optimizer:
      return "optimizer";
    case Phase::exchange:
      return "exchange";
    case Phase::checkpoint:
      return "checkpoint";
  }
  return "?";
}

StepTimer::Scope StepTimer::time(Phase phase) {
  charge();
  open_.push_back(phase);
  return Scope(*this);
}

void StepTimer::leave() {
  charge();
  open_.pop_back();
}

void StepTimer::charge() {
  const Clock::time_point now = Clock::now();
  if (!open_.empty()) {
    seconds_[static_cast<std::size_t>(open_.back())] +=
        std::chrono::duration<double>(now - since_).count();
  }
  since_ = now;
}

StepTimer::Seconds StepTimer::seconds() const {
  StepTimer copy = *this;
  copy.charge();
  return copy.seconds_;
}

StepTimer::Seconds StepTimer::take() {
  charge();
  const Seconds taken = seconds_;
  seconds_ = {};
  return taken;
}

std::vector<Metric> phase_metrics(const StepTimer::Seconds& seconds, std::int64_t steps) {
  std::vector<Metric> metrics;
  for (std::size_t i = 0; i < seconds.size(); ++i) {
    if (seconds[i] == 0.0) continue;
    metrics.push_back({std::string("time/") + name_of(static_cast<Phase>(i)),
                       seconds[i] / static_cast<double>(steps)});
  }
  return metrics;
}

}  // namespace fulcrum::telemetry
