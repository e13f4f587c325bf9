#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "apps/sweep/report.h"

namespace fulcrum::apps {
namespace {

constexpr double kWidth = 860, kHeight = 460;
constexpr double kLeft = 74, kRight = 18, kTop = 16, kBottom = 50;

// Round numbers that divide [low, high] into about `count` parts.
std::vector<double> ticks(double low, double high, int count) {
  const double raw = (high - low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10.0 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= raw) step = factor * power;
  std::vector<double> out;
  for (double t = std::ceil(low / step - 1e-9) * step; t <= high + 1e-9 * step; t += step)
    out.push_back(std::abs(t) < 1e-12 * step ? 0.0 : t);
  return out;
}

struct Axes {
  double x_low, x_high, y_low, y_high;
  bool log_x;

  double scale(double x) const { return log_x ? std::log10(x) : x; }
  double x(double value) const {
    return kLeft + (scale(value) - x_low) / (x_high - x_low) * (kWidth - kLeft - kRight);
  }
  double y(double value) const {
    return kTop + (y_high - value) / (y_high - y_low) * (kHeight - kTop - kBottom);
  }
  double clamped_x(double value) const { return std::clamp(x(value), kLeft, kWidth - kRight); }
};

Axes axes_of(const Curve& curve, bool log_x, std::optional<double> also) {
  Axes axes{0, 1, HUGE_VAL, -HUGE_VAL, log_x};
  const double first = axes.scale(curve.first()), last = axes.scale(curve.last());
  const double margin = std::max(0.03 * (last - first), 1e-3);
  axes.x_low = first - margin, axes.x_high = last + margin;
  for (const Level& level : curve.levels) {
    for (const double loss : level.losses) {
      axes.y_low = std::min(axes.y_low, loss);
      axes.y_high = std::max(axes.y_high, loss);
    }
  }
  if (also) axes.y_low = std::min(axes.y_low, *also), axes.y_high = std::max(axes.y_high, *also);
  const double room = std::max(0.08 * (axes.y_high - axes.y_low), 1e-5);
  axes.y_low -= room, axes.y_high += room;
  return axes;
}

std::string grid(const Axes& axes, const std::string& x_name) {
  std::string svg;
  const double bottom = kHeight - kBottom;
  const std::vector<double> y_ticks = ticks(axes.y_low, axes.y_high, 6);
  const double y_step = y_ticks.size() > 1 ? y_ticks[1] - y_ticks[0] : 1.0;
  const int digits = std::clamp(static_cast<int>(std::ceil(-std::log10(y_step) - 1e-9)), 0, 6);
  for (const double t : y_ticks) {
    svg += fmt::format("<path class='grid' d='M{:.1f} {:.1f}H{:.1f}'/>", kLeft, axes.y(t),
                       kWidth - kRight);
    svg += fmt::format("<text class='tick' x='{:.1f}' y='{:.1f}' text-anchor='end'>{:.{}f}</text>",
                       kLeft - 8, axes.y(t) + 4, t, digits);
  }
  for (const double t : ticks(axes.x_low, axes.x_high, axes.log_x ? 4 : 7)) {
    const double value = axes.log_x ? std::pow(10.0, t) : t;
    const std::string label =
        axes.log_x ? fmt::format("{:.3g}", value) : fmt::format("{:.4g}", value);
    svg +=
        fmt::format("<path class='grid' d='M{:.1f} {:.1f}V{:.1f}'/>", axes.x(value), kTop, bottom);
    svg += fmt::format("<text class='tick' x='{:.1f}' y='{:.1f}' text-anchor='middle'>{}</text>",
                       axes.x(value), bottom + 18, label);
  }
  svg += fmt::format("<path class='axis' d='M{0:.1f} {1:.1f}V{2:.1f}H{3:.1f}'/>", kLeft, kTop,
                     bottom, kWidth - kRight);
  const std::string x_label =
      x_name == "rho" ? "ρ: share of the sparse parameters in experts" : html_escaped(x_name);
  svg += fmt::format("<text class='label' x='{:.1f}' y='{:.1f}' text-anchor='middle'>{}</text>",
                     0.5 * (kLeft + kWidth - kRight), kHeight - 8, x_label);
  svg += fmt::format(
      "<text class='label' transform='translate(16 {:.1f}) rotate(-90)' text-anchor='middle'>loss "
      "(nats)</text>",
      0.5 * (kTop + bottom));
  return svg;
}

std::string line(const Axes& axes, double low, double high, const char* style,
                 const std::function<double(double)>& f) {
  constexpr int kSteps = 240;
  std::string path;
  bool pen = false;
  for (int i = 0; i <= kSteps; ++i) {
    const double position = axes.scale(low) + (axes.scale(high) - axes.scale(low)) * i / kSteps;
    const double x = axes.log_x ? std::pow(10.0, position) : position;
    const double loss = f(x);
    const bool inside = loss >= axes.y_low && loss <= axes.y_high;
    if (inside) path += fmt::format("{}{:.1f} {:.1f}", pen ? "L" : "M", axes.x(x), axes.y(loss));
    pen = inside;
  }
  return fmt::format("<path class='{}' d='{}'/>", style, path);
}

std::string measurements(const Axes& axes, const Curve& curve) {
  std::string svg;
  for (const Level& level : curve.levels) {
    const auto [low, high] = std::minmax_element(level.losses.begin(), level.losses.end());
    const double x = axes.x(level.x);
    if (level.losses.size() > 1) {
      svg += fmt::format(
          "<path class='spread' d='M{0:.1f} {1:.1f}V{2:.1f}M{3:.1f} {1:.1f}h10M{3:.1f} "
          "{2:.1f}h10'/>",
          x, axes.y(*low), axes.y(*high), x - 5);
      for (const double loss : level.losses)
        svg +=
            fmt::format("<circle class='run' cx='{:.1f}' cy='{:.1f}' r='2.6'/>", x, axes.y(loss));
    }
    svg += fmt::format(
        "<circle class='mean' cx='{:.1f}' cy='{:.1f}' r='4.5'><title>{:g}: {:.4f}</title></circle>",
        x, axes.y(level.mean()), level.x, level.mean());
  }
  return svg;
}

// The interval as a band behind everything, the optimum as a line with its value.
std::string optimum_marks(const Axes& axes, const UCurve& fit) {
  const double bottom = kHeight - kBottom;
  if (fit.edge != Edge::none) {
    const double x = axes.x(fit.edge == Edge::low ? fit.curve.first() : fit.curve.last());
    const bool low = fit.edge == Edge::low;
    return fmt::format(
        "<path class='edge' d='M{0:.1f} {1:.1f}V{2:.1f}'/><text class='note' x='{3:.1f}' "
        "y='{4:.1f}' "
        "text-anchor='{5}'>lowest at the {6} edge: no optimum claimed</text>",
        x, kTop, bottom, low ? x + 8 : x - 8, kTop + 14, low ? "start" : "end", name_of(fit.edge));
  }
  const Optimum& optimum = fit.physical ? fit.physical_optimum : fit.parabola_optimum;
  std::string svg;
  if (optimum.rho_interval) {
    const double from = axes.clamped_x(optimum.rho_interval->low),
                 to = axes.clamped_x(optimum.rho_interval->high);
    svg += fmt::format("<rect class='band' x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}'/>",
                       from, kTop, std::max(1.0, to - from), bottom - kTop);
  }
  const double x = axes.x(optimum.rho);
  const bool right = x > 0.6 * kWidth;
  svg += fmt::format(
      "<path class='best' d='M{0:.1f} {1:.1f}V{2:.1f}'/><text class='note' x='{3:.1f}' y='{4:.1f}' "
      "text-anchor='{5}'>ρ* = {6:.1f} %</text>",
      x, kTop, bottom, right ? x - 8 : x + 8, kTop + 14, right ? "end" : "start",
      100.0 * optimum.rho);
  return svg;
}

}  // namespace

std::string figure_svg(const CurveFit& fit, const std::string& x_name) {
  const Curve& curve = fit.u_curve ? fit.u_curve->curve : fit.log_linear->curve;
  if (curve.levels.empty()) return "<p>No point is done.</p>";
  const bool log_x = fit.log_linear.has_value();
  const Axes axes = axes_of(curve, log_x, log_x ? fit.log_linear->baseline : std::nullopt);
  std::string svg =
      fmt::format("<svg viewBox='0 0 {:.0f} {:.0f}' role='img' aria-label='Loss over {}'>", kWidth,
                  kHeight, html_escaped(x_name));
  if (fit.u_curve && fit.u_curve->parabola) svg += optimum_marks(axes, *fit.u_curve);
  svg += grid(axes, x_name);
  if (fit.u_curve && fit.u_curve->parabola)
    svg += line(axes, curve.first(), curve.last(), "parabola", *fit.u_curve->parabola);
  if (fit.u_curve && fit.u_curve->physical)
    svg += line(axes, curve.first(), curve.last(), "physical", *fit.u_curve->physical);
  if (fit.log_linear && fit.log_linear->fitted)
    svg += line(axes, curve.first(), curve.last(), "physical", fit.log_linear->law);
  if (fit.log_linear && fit.log_linear->baseline)
    svg += fmt::format("<path class='parabola' d='M{:.1f} {:.1f}H{:.1f}'/>", kLeft,
                       axes.y(*fit.log_linear->baseline), kWidth - kRight);
  return svg + measurements(axes, curve) + "</svg>";
}

}  // namespace fulcrum::apps
