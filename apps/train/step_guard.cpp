#include "apps/train/step_guard.h"

#include <cmath>

#include "framework/core/error.h"

namespace fulcrum::apps {

std::optional<std::string> StepGuard::reason_to_skip(std::int64_t step, double loss,
                                                     double gradient_norm) {
  std::optional<std::string> reason;
  if (!std::isfinite(loss) || !std::isfinite(gradient_norm)) {
    if (!config_.skip_nonfinite) {
      throw UserError(fmt::format("step {}: loss {} and gradient norm {} are not finite", step,
                                  loss, gradient_norm));
    }
    reason = fmt::format("loss {} or gradient norm {} is not finite", loss, gradient_norm);
  } else if (config_.spike_sigma > 0.0 && norms_.size() >= kMinimum) {
    double mean = 0.0;
    for (const double n : norms_) mean += n;
    mean /= static_cast<double>(norms_.size());
    double variance = 0.0;
    for (const double n : norms_) variance += (n - mean) * (n - mean);
    const double deviation = std::sqrt(variance / static_cast<double>(norms_.size()));
    if (gradient_norm > mean + config_.spike_sigma * deviation) {
      reason = fmt::format(
          "gradient norm {:.4g} lies more than {} deviations of {:.4g} above the mean {:.4g}",
          gradient_norm, config_.spike_sigma, deviation, mean);
    }
  }
  if (!reason) {
    skipped_ = 0;
    if (norms_.size() < kWindow) {
      norms_.push_back(gradient_norm);
    } else {
      norms_[next_] = gradient_norm;
    }
    next_ = (next_ + 1) % kWindow;
    return reason;
  }
  if (++skipped_ > config_.max_skips) {
    throw UserError(
        fmt::format("step {}: {} (train.guard.max_skips: {} steps in a row were skipped)", step,
                    *reason, config_.max_skips));
  }
  return reason;
}

std::vector<double> StepGuard::state() const {
  std::vector<double> state = {static_cast<double>(next_), static_cast<double>(skipped_)};
  state.insert(state.end(), norms_.begin(), norms_.end());
  return state;
}

void StepGuard::restore(const std::vector<double>& state) {
  FULCRUM_CHECK(state.size() >= 2, "guard state of {} numbers", state.size());
  next_ = static_cast<std::size_t>(state[0]);
  skipped_ = static_cast<std::int64_t>(state[1]);
  norms_.assign(state.begin() + 2, state.end());
}

}  // namespace fulcrum::apps
