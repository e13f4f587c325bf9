#pragma once
// The memory-scaling law: loss = intercept + slope · log10(slots / 10⁶), least squares over every
// run (DSE section 3.2, where it is 1.7714 − 0.02839 · log10(slots / 10⁶)). A point with 0 slots is
// the model without memory: kept apart as the baseline.

#include "apps/sweep/fit/bootstrap.h"
#include "apps/sweep/fit/curve.h"

namespace fulcrum::apps {

struct LogLinear {
  double intercept = 0.0;  // loss at 10⁶ slots
  double slope = 0.0;      // per factor of ten

  static constexpr double kUnit = 1e6;
  static constexpr int kParameters = 2;
  double operator()(double slots) const;
  double per_doubling() const;
};

struct LogLinearFit {
  Curve curve;  // without the baseline
  std::optional<double> baseline;
  bool fitted = false;
  std::string reason;  // why not
  LogLinear law;
  std::optional<Interval> intercept_interval, slope_interval;
  double rms_residual = 0.0;
};

struct UCurveOptions;
LogLinearFit fit_log_linear(const std::vector<Point>& points, const UCurveOptions& options);

}  // namespace fulcrum::apps
