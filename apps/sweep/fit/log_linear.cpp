#include "apps/sweep/fit/log_linear.h"

#include <fmt/format.h>

#include <cmath>

#include "apps/sweep/fit/u_curve.h"

namespace fulcrum::apps {
namespace {

LogLinear fit_law(const Curve& curve) {
  const double n = static_cast<double>(curve.count());
  double mean_t = 0.0, mean_y = 0.0;
  for (const Level& level : curve.levels) {
    const double weight = static_cast<double>(level.losses.size()) / n;
    mean_t += weight * std::log10(level.x / LogLinear::kUnit);
    mean_y += weight * level.mean();
  }
  double tt = 0.0, ty = 0.0;
  for (const Level& level : curve.levels) {
    const double weight = static_cast<double>(level.losses.size()) / n;
    const double t = std::log10(level.x / LogLinear::kUnit) - mean_t;
    tt += weight * t * t;
    ty += weight * t * (level.mean() - mean_y);
  }
  LogLinear law;
  law.slope = ty / tt;
  law.intercept = mean_y - law.slope * mean_t;
  return law;
}

}  // namespace

double LogLinear::operator()(double slots) const {
  return intercept + slope * std::log10(slots / kUnit);
}

double LogLinear::per_doubling() const { return slope * std::log10(2.0); }

LogLinearFit fit_log_linear(const std::vector<Point>& points, const UCurveOptions& options) {
  std::vector<Point> with_memory, without;
  for (const Point& point : points) (point.x > 0.0 ? with_memory : without).push_back(point);
  LogLinearFit fit;
  fit.curve = make_curve(with_memory);
  if (!without.empty()) fit.baseline = make_curve(without).levels.front().mean();
  if (fit.curve.levels.size() < 2) {
    fit.reason =
        fmt::format("needs 2 different numbers of slots, found {}", fit.curve.levels.size());
    return fit;
  }
  fit.fitted = true;
  fit.law = fit_law(fit.curve);
  std::vector<double> fitted;
  double square = 0.0;
  for (const Level& level : fit.curve.levels) {
    fitted.push_back(fit.law(level.x));
    for (const double loss : level.losses) square += std::pow(loss - fitted.back(), 2);
  }
  fit.rms_residual = std::sqrt(square / static_cast<double>(fit.curve.count()));

  const Bootstrap bootstrap(fit.curve, fitted, LogLinear::kParameters, options.seed);
  if (!bootstrap.possible() || options.draws < 2) return fit;
  std::vector<double> intercepts, slopes;
  for (std::int64_t k = 0; k < options.draws; ++k) {
    const LogLinear law = fit_law(bootstrap.draw(static_cast<std::uint64_t>(k)));
    intercepts.push_back(law.intercept);
    slopes.push_back(law.slope);
  }
  fit.intercept_interval = central_interval(std::move(intercepts), options.confidence);
  fit.slope_interval = central_interval(std::move(slopes), options.confidence);
  return fit;
}

}  // namespace fulcrum::apps
