#pragma once
// The learning rate as a pure function of the step.

#include <cstdint>
#include <vector>

namespace fulcrum {

enum class ScheduleShape : std::uint8_t { constant, step, cosine, wsd };

// With n steps, s = 0 … n − 1, and f = final_fraction, times peak:
//   s < warmup   (s + 1) / warmup: a line from near zero to the peak
//   constant     1
//   step         gamma^(number of milestones m with s ≥ m·n)
//   cosine       f + (1 − f)·(1 + cos πp) / 2,  p = (s − warmup) / (n − warmup)
//   wsd          1, then over the last decay_fraction·n steps a line to f
//
// Step decay is that of DeepSeek-LLM by default: ×0.316 at 80 % and again at 90 %. Wsd is warm-up,
// stable, decay. Cosine and wsd would reach f at step n; steps from n on keep that value.
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
