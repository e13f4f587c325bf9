#include "apps/sweep/fit/output.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/sweep/fit/terminal_plot.h"

namespace fulcrum::apps {
namespace {

using Json = nlohmann::ordered_json;

Json interval_json(const std::optional<Interval>& interval) {
  return interval ? Json::array({interval->low, interval->high}) : Json(nullptr);
}

Json optimum_json(const UCurve& fit, const Optimum& optimum) {
  const bool claimed = fit.claims(optimum);
  Json json;
  json["rho"] = claimed ? Json(optimum.rho) : Json(nullptr);
  json["loss"] = claimed ? Json(optimum.loss) : Json(nullptr);
  json["interval"] = claimed ? interval_json(optimum.rho_interval) : Json(nullptr);
  json["loss_interval"] = claimed ? interval_json(optimum.loss_interval) : Json(nullptr);
  if (!optimum.fitted) {
    json["reason"] = optimum.reason;
    return json;
  }
  json["edge"] = optimum.edge == Edge::none ? Json(nullptr) : Json(name_of(optimum.edge));
  json["minimum"] = {{"rho", optimum.rho},
                     {"loss", optimum.loss},
                     {"interval", interval_json(optimum.rho_interval)}};
  json["edge_share"] = optimum.edge_share;
  json["rms_residual"] = optimum.rms_residual;
  return json;
}

Json points_json(const CurveData& data, const std::string& x_name) {
  Json points = Json::array();
  for (const Point& point : data.points) {
    Json row = {{x_name, point.x}, {"loss", point.loss}};
    if (point.seed) row["seed"] = *point.seed;
    points.push_back(std::move(row));
  }
  return points;
}

Json missing_json(const CurveData& data, const std::string& x_name) {
  Json missing = Json::array();
  for (const MissingPoint& point : data.missing) {
    Json row = {{x_name, point.x}};
    if (point.seed) row["seed"] = *point.seed;
    row["why"] = point.why;
    missing.push_back(std::move(row));
  }
  return missing;
}

Json u_curve_json(const UCurve& fit) {
  Json json;
  json["edge"] = fit.edge == Edge::none ? Json(nullptr) : Json(name_of(fit.edge));
  json["parabola"] = optimum_json(fit, fit.parabola_optimum);
  if (fit.parabola) {
    const Parabola& p = *fit.parabola;
    const double linear = p.slope - 2.0 * p.curvature * p.center;
    const double constant = p.constant + p.center * (p.curvature * p.center - p.slope);
    json["parabola"]["coefficients"] = {constant, linear, p.curvature};
  }
  json["physical"] = optimum_json(fit, fit.physical_optimum);
  if (fit.physical) {
    const Physical& p = *fit.physical;
    json["physical"]["coefficients"] = {{"c", p.c},         {"a", p.a},       {"b", p.b},
                                        {"alpha", p.alpha}, {"beta", p.beta}, {"delta", p.delta}};
    json["physical"]["at_bound"] = p.at_bound;
  }
  if (!fit.curve.levels.empty()) json["range"] = {fit.curve.first(), fit.curve.last()};
  json["noise"] = fit.noise;
  json["confidence"] = fit.options.confidence;
  json["draws"] = fit.options.draws;
  return json;
}

Json log_linear_json(const LogLinearFit& fit) {
  Json law;
  law["intercept"] = fit.fitted ? Json(fit.law.intercept) : Json(nullptr);
  law["slope"] = fit.fitted ? Json(fit.law.slope) : Json(nullptr);
  law["unit"] = LogLinear::kUnit;
  law["intercept_interval"] = interval_json(fit.intercept_interval);
  law["interval"] = interval_json(fit.slope_interval);
  if (fit.fitted) {
    law["per_doubling"] = fit.law.per_doubling();
    law["rms_residual"] = fit.rms_residual;
  } else {
    law["reason"] = fit.reason;
  }
  return {{"log_linear", law}, {"baseline", fit.baseline ? Json(*fit.baseline) : Json(nullptr)}};
}

std::string interval_text(const std::optional<Interval>& interval, double scale, int digits) {
  if (!interval) return "no interval";
  return fmt::format("[{:.{}f}, {:.{}f}]", interval->low * scale, digits, interval->high * scale,
                     digits);
}

std::string optimum_text(const char* name, const UCurve& fit, const Optimum& optimum) {
  if (!optimum.fitted) return fmt::format("  {:<9} {}\n", name, optimum.reason);
  if (!fit.claims(optimum)) {
    return fmt::format(
        "  {:<9} no optimum claimed; lowest within the range at {:.1f} %, loss {:.4f}\n", name,
        100.0 * optimum.rho, optimum.loss);
  }
  return fmt::format("  {:<9} rho* {:.1f} %  {} %   loss {:.4f}  {}   rms {:.4f}\n", name,
                     100.0 * optimum.rho, interval_text(optimum.rho_interval, 100.0, 1),
                     optimum.loss, interval_text(optimum.loss_interval, 1.0, 4),
                     optimum.rms_residual);
}

std::string level_table(const Curve& curve, const std::string& x_name) {
  std::string text =
      fmt::format("  {:>10}  {:>8}  {:>8}  {:>4}\n", x_name, "loss", "spread", "runs");
  for (const Level& level : curve.levels) {
    const auto [low, high] = std::minmax_element(level.losses.begin(), level.losses.end());
    const std::string spread =
        level.losses.size() > 1 ? fmt::format("{:.4f}", *high - *low) : std::string("-");
    text += fmt::format("  {:>10.6g}  {:>8.4f}  {:>8}  {:>4}\n", level.x, level.mean(), spread,
                        level.losses.size());
  }
  return text;
}

std::string missing_text(const CurveData& data, const std::string& x_name) {
  if (data.missing.empty()) return "";
  std::string text = fmt::format("  missing ({}):", data.missing.size());
  for (const MissingPoint& point : data.missing) {
    text += fmt::format(" {} {:g}", x_name, point.x);
    if (point.seed) text += fmt::format(" seed {}", *point.seed);
    text += fmt::format(" ({});", point.why);
  }
  text.back() = '\n';
  return text;
}

std::string u_curve_text(const CurveFit& fit, const std::string& x_name, int width) {
  const UCurve& u = *fit.u_curve;
  PlotSpec plot{.width = width, .height = 16, .log_x = false, .series = {}};
  if (u.parabola) plot.series.push_back({'.', "parabola", *u.parabola});
  if (u.physical) plot.series.push_back({'*', "physical", *u.physical});
  std::string text = level_table(u.curve, x_name) + "\n" + terminal_plot(u.curve, plot) + "\n";
  text += optimum_text("parabola", u, u.parabola_optimum);
  text += optimum_text("physical", u, u.physical_optimum);
  return text + "  " + verdict(u) + "\n";
}

std::string log_linear_text(const CurveFit& fit, const std::string& x_name, int width) {
  const LogLinearFit& f = *fit.log_linear;
  PlotSpec plot{.width = width, .height = 14, .log_x = true, .series = {}};
  if (f.fitted) plot.series.push_back({'*', "log-linear", f.law});
  std::string text = level_table(f.curve, x_name) + "\n" + terminal_plot(f.curve, plot) + "\n";
  if (!f.fitted) return text + "  log-linear " + f.reason + "\n";
  text += fmt::format("  loss = {:.4f} {} {:.5f} log10({} / 1e6)   rms {:.4f}\n", f.law.intercept,
                      f.law.slope < 0 ? '-' : '+', std::abs(f.law.slope), x_name, f.rms_residual);
  text += fmt::format("  slope {}, intercept {}; {:+.4f} for each doubling\n",
                      interval_text(f.slope_interval, 1.0, 5),
                      interval_text(f.intercept_interval, 1.0, 4), f.law.per_doubling());
  if (f.baseline) text += fmt::format("  without memory: {:.4f}\n", *f.baseline);
  return text;
}

}  // namespace

const char* name_of(Edge edge) {
  return edge == Edge::low ? "low" : edge == Edge::high ? "high" : "none";
}

std::string verdict(const UCurve& fit) {
  if (!fit.parabola) return "Too few values of rho for a fit.";
  if (fit.edge != Edge::none) {
    return fmt::format(
        "The best rho lies at the {} edge of what was measured ({:g}): an edge, not an optimum; "
        "no optimum is claimed.",
        name_of(fit.edge), fit.edge == Edge::low ? fit.curve.first() : fit.curve.last());
  }
  const bool physical = fit.physical.has_value();
  const Optimum& optimum = physical ? fit.physical_optimum : fit.parabola_optimum;
  std::string text = fmt::format("Optimum by the {}: rho* = {:.1f} %",
                                 physical ? "physical form" : "parabola", 100.0 * optimum.rho);
  if (optimum.rho_interval)
    text += fmt::format(", {:.0f} % interval {} %", 100.0 * fit.options.confidence,
                        interval_text(optimum.rho_interval, 100.0, 1));
  text += fmt::format("; measured from {:g} to {:g}.", fit.curve.first(), fit.curve.last());
  if (optimum.rho_interval && optimum.edge_share > 0.05)
    text += fmt::format(" In {:.0f} % of the bootstrap draws the minimum lies at an edge.",
                        100.0 * optimum.edge_share);
  return text;
}

FitReport fit_dataset(const Dataset& dataset, const UCurveOptions& options) {
  FitReport report{dataset.source, dataset.kind, dataset.x_name, {}};
  for (const CurveData& data : dataset.curves) {
    CurveFit fit{data, std::nullopt, std::nullopt};
    if (dataset.kind == FitKind::u_curve) fit.u_curve = fit_u_curve(data.points, options);
    if (dataset.kind == FitKind::log_linear) fit.log_linear = fit_log_linear(data.points, options);
    report.curves.push_back(std::move(fit));
  }
  return report;
}

Json to_json(const FitReport& report) {
  Json curves = Json::array();
  for (const CurveFit& fit : report.curves) {
    Json json;
    if (!fit.data.label.empty()) json["label"] = fit.data.label;
    if (fit.data.flops) json["flops"] = *fit.data.flops;
    json.update(fit.u_curve ? u_curve_json(*fit.u_curve) : log_linear_json(*fit.log_linear));
    json["points"] = points_json(fit.data, report.x_name);
    json["missing"] = missing_json(fit.data, report.x_name);
    curves.push_back(std::move(json));
  }
  if (curves.size() == 1) return curves[0];
  return {{"budgets", curves}};
}

std::string to_text(const FitReport& report, int width) {
  std::string text;
  for (const CurveFit& fit : report.curves) {
    if (!text.empty()) text += "\n";
    if (!fit.data.label.empty()) text += fit.data.label + "\n";
    text += fit.u_curve ? u_curve_text(fit, report.x_name, width)
                        : log_linear_text(fit, report.x_name, width);
    text += missing_text(fit.data, report.x_name);
  }
  return text;
}

}  // namespace fulcrum::apps
