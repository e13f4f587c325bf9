#pragma once
// Decides which steps change nothing: those whose loss or gradient norm is not finite, and on
// request those whose gradient norm lies far above the recent ones. The inputs are global (reduced
// over ranks), so every rank decides alike.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/train/config.h"

namespace fulcrum::apps {

class StepGuard {
 public:
  static constexpr std::size_t kWindow = 128;  // accepted steps remembered
  static constexpr std::size_t kMinimum = 64;  // before which no spike is called

  explicit StepGuard(const GuardConfig& config) : config_(config) {}

  // The reason to skip this step, or nothing. Throws UserError after max_skips skipped steps in a
  // row.
  std::optional<std::string> reason_to_skip(std::int64_t step, double loss, double gradient_norm);

  // For checkpoints: a resumed run decides as one that never stopped.
  std::vector<double> state() const;
  void restore(const std::vector<double>& state);

 private:
  GuardConfig config_;
  std::vector<double> norms_;  // ring
  std::size_t next_ = 0;
  std::int64_t skipped_ = 0;
};

}  // namespace fulcrum::apps
