#include "framework/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "framework/core/error.h"

namespace fulcrum {
namespace {

double shape_of(const Schedule& schedule, std::int64_t step) {
  const auto steps = static_cast<double>(schedule.steps);
  const double rest = 1.0 - schedule.final_fraction;
  switch (schedule.shape) {
    case ScheduleShape::constant:
      return 1.0;
    case ScheduleShape::step: {
      double factor = 1.0;
      for (const double milestone : schedule.milestones) {
        if (static_cast<double>(step) >= milestone * steps) factor *= schedule.gamma;
      }
      return factor;
    }
    case ScheduleShape::cosine: {
      const std::int64_t length = std::max<std::int64_t>(1, schedule.steps - schedule.warmup_steps);
      const double progress =
          static_cast<double>(step - schedule.warmup_steps) / static_cast<double>(length);
      return schedule.final_fraction +
             rest * 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(1.0, progress)));
    }
    case ScheduleShape::wsd: {
      const double length = schedule.decay_fraction * steps;
      const double left = steps - static_cast<double>(step);
      return left >= length ? 1.0 : schedule.final_fraction + rest * std::max(0.0, left / length);
    }
  }
  throw InternalError("unknown schedule");
}

}  // namespace

double Schedule::learning_rate(std::int64_t step) const {
  FULCRUM_CHECK(step >= 0 && steps >= 0 && warmup_steps >= 0, "step {} of {} with {} of warm-up",
                step, steps, warmup_steps);
  if (step < warmup_steps) {
    return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  }
  return peak * shape_of(*this, std::min(step, std::max(steps, warmup_steps)));
}

}  // namespace fulcrum
