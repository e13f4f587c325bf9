#pragma once
// The learning rate as a pure function of the step.

#include <cstdint>
#include <vector>

namespace fulcrum {

enum class ScheduleShape : std::uint8_t { constant, step, cosine, wsd };

// With n steps, s = 0 … n − 1, and p = (s − warmup) / (n − warmup):
//   s < warmup   (s + 1) / warmup, a line from near zero to the peak
//   constant     1
//   step         gamma^(number of milestones m with s ≥ m·n): DeepSeek-LLM has ×0.316 at 80 % and
//   at 90 % cosine       f + (1 − f)·(1 + cos πp) / 2 with f = final_fraction wsd          1, then
//   over the last decay_fraction·n steps a line to f (warm-up, stable, decay)
// all times peak. Cosine and wsd would reach f at step n. Steps from n on keep the value of n.
struct Schedule {
  ScheduleShape shape = ScheduleShape::cosine;
  double peak = 1e-3;
  std::int64_t steps = 0;  // of the whole run
  std::int64_t warmup_steps = 0;
  double final_fraction = 0.1;
  double decay_fraction = 0.2;
  std::vector<double> milestones = {0.8, 0.9};  // fractions of the steps, ascending
  double gamma = 0.316;

  // Of the step about to be done, counted from 0.
  double learning_rate(std::int64_t step) const;
};

}  // namespace fulcrum
