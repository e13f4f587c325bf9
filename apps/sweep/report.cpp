#include "apps/sweep/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace fulcrum::apps {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ground: #fff; --text: #1c1e21; --soft: #5f6670; --rule: #dfe3e8;
  --physical: #0b62c4; --parabola: #b3541e; --band: #0b62c41f; --mean: #1c1e21; --run: #8a919b; }
@media (prefers-color-scheme: dark) { :root { --ground: #15181c; --text: #e6e8eb; --soft: #9aa3ad; --rule: #2d333b;
  --physical: #6db1ff; --parabola: #f0a36b; --band: #6db1ff2b; --mean: #f2f4f6; --run: #7d8691; } }
body { background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 920px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
.soft { color: var(--soft); } .verdict { font-size: 1.05rem; margin: .5rem 0 1rem; }
svg { width: 100%; height: auto; display: block; }
.grid { stroke: var(--rule); fill: none; } .axis { stroke: var(--soft); fill: none; }
.tick { fill: var(--soft); font-size: 12px; } .label { fill: var(--text); font-size: 13px; }
.note { fill: var(--text); font-size: 13px; font-weight: 600; }
.physical, .parabola { fill: none; stroke-width: 2; } .physical { stroke: var(--physical); }
.parabola { stroke: var(--parabola); stroke-dasharray: 6 5; }
.band { fill: var(--band); } .best { stroke: var(--physical); fill: none; stroke-dasharray: 2 4; }
.edge { stroke: var(--parabola); fill: none; stroke-width: 2; stroke-dasharray: 2 4; }
.spread { stroke: var(--run); fill: none; } .run { fill: var(--run); } .mean { fill: var(--mean); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: .25rem 0 1rem; font-size: .9rem; }
.legend svg { display: inline-block; width: 30px; height: 12px; margin-right: .4rem; vertical-align: middle; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; color: var(--soft); } th:first-child, td:first-child { text-align: left; }
td.text, th.text { text-align: left; overflow-wrap: anywhere; }
)";

std::string swatch(const std::string& shape, const std::string& text) {
  return fmt::format("<span><svg viewBox='0 0 30 12'>{}</svg>{}</span>", shape, text);
}

std::string legend(const CurveFit& fit) {
  std::string html = "<div class='legend'>";
  html += swatch("<circle class='mean' cx='15' cy='6' r='4.5'/>", "mean of a level");
  const Curve& curve = fit.u_curve ? fit.u_curve->curve : fit.log_linear->curve;
  if (curve.seed_freedom() > 0) {
    html += swatch("<circle class='run' cx='15' cy='6' r='2.6'/>", "one run");
    html += swatch("<path class='spread' d='M15 1V11M10 1h10M10 11h10'/>", "range of the runs");
  }
  if (fit.log_linear) {
    if (fit.log_linear->fitted)
      html += swatch("<path class='physical' d='M0 6H30'/>", "log-linear law");
    if (fit.log_linear->baseline)
      html += swatch("<path class='parabola' d='M0 6H30'/>", "without memory");
    return html + "</div>";
  }
  const UCurve& u = *fit.u_curve;
  if (u.physical) html += swatch("<path class='physical' d='M0 6H30'/>", "physical form");
  if (u.parabola) html += swatch("<path class='parabola' d='M0 6H30'/>", "parabola");
  const Optimum& optimum = u.physical ? u.physical_optimum : u.parabola_optimum;
  if (u.claims(optimum) && optimum.rho_interval)
    html += swatch("<rect class='band' width='30' height='12'/>",
                   fmt::format("{:.0f} % interval of ρ*", 100.0 * u.options.confidence));
  return html + "</div>";
}

std::string interval_cell(const std::optional<Interval>& interval, double scale, int digits) {
  if (!interval) return "–";
  return fmt::format("{:.{}f} – {:.{}f}", scale * interval->low, digits, scale * interval->high,
                     digits);
}

std::string optimum_row(const char* name, const UCurve& fit, const Optimum& optimum) {
  if (!optimum.fitted)
    return fmt::format("<tr><td>{}</td><td class='text' colspan='5'>{}</td></tr>", name,
                       html_escaped(optimum.reason));
  if (!fit.claims(optimum)) {
    return fmt::format(
        "<tr><td>{}</td><td class='text' colspan='4'>no optimum claimed: lowest within the range "
        "at "
        "{:.1f} %, loss {:.4f}</td><td>{:.5f}</td></tr>",
        name, 100.0 * optimum.rho, optimum.loss, optimum.rms_residual);
  }
  return fmt::format(
      "<tr><td>{}</td><td>{:.1f} %</td><td>{} %</td><td>{:.4f}</td><td>{}</td><td>{:.5f}</td></tr>",
      name, 100.0 * optimum.rho, interval_cell(optimum.rho_interval, 100.0, 1), optimum.loss,
      interval_cell(optimum.loss_interval, 1.0, 4), optimum.rms_residual);
}

std::string u_curve_tables(const UCurve& fit) {
  std::string html = fmt::format(
      "<div class='wide'><table><tr><th>form</th><th>ρ*</th><th>{0:.0f} % interval</th><th>loss at "
      "ρ*</th>"
      "<th>{0:.0f} % interval</th><th>rms residual</th></tr>",
      100.0 * fit.options.confidence);
  html += optimum_row("physical form", fit, fit.physical_optimum);
  html += optimum_row("parabola", fit, fit.parabola_optimum) + "</table></div>";
  if (fit.physical) {
    const Physical& p = *fit.physical;
    html += fmt::format(
        "<p class='soft'>loss(ρ) = {:.4f} + {:.4g} ρ<sup>−{:.3f}</sup> + {:.4g} (1 − ρ + "
        "{:.4f})<sup>−{:.3f}</sup>; noise of "
        "one run {:.5f}; {} bootstrap draws over points and seeds; ρ measured from {:g} to "
        "{:g}.</p>",
        p.c, p.a, p.alpha, p.b, p.delta, p.beta, fit.noise, fit.options.draws, fit.curve.first(),
        fit.curve.last());
  }
  return html;
}

std::string log_linear_tables(const LogLinearFit& fit, const std::string& x_name) {
  if (!fit.fitted)
    return fmt::format("<p class='verdict'>No law: {}.</p>", html_escaped(fit.reason));
  return fmt::format(
      "<p class='verdict'>loss = {:.4f} {} {:.5f} log<sub>10</sub>({} / 10<sup>6</sup>), {:+.4f} "
      "for each "
      "doubling.</p><p class='soft'>Slope interval {}; rms residual {:.5f}.</p>",
      fit.law.intercept, fit.law.slope < 0 ? "−" : "+", std::abs(fit.law.slope),
      html_escaped(x_name), fit.law.per_doubling(), interval_cell(fit.slope_interval, 1.0, 5),
      fit.rms_residual);
}

std::string level_table(const CurveFit& fit, const std::string& x_name) {
  const Curve& curve = fit.u_curve ? fit.u_curve->curve : fit.log_linear->curve;
  std::string html = fmt::format(
      "<div class='wide'><table><tr><th>{}</th><th>mean loss</th><th>runs</th><th class='text'>losses</th></tr>",
      x_name == "rho" ? "ρ" : html_escaped(x_name));
  for (const Level& level : curve.levels) {
    std::string losses;
    for (const double loss : level.losses)
      losses += fmt::format("{}{:.4f}", losses.empty() ? "" : ", ", loss);
    html += fmt::format("<tr><td>{:g}</td><td>{:.4f}</td><td>{}</td><td class='text'>{}</td></tr>",
                        level.x, level.mean(), level.losses.size(), losses);
  }
  return html + "</table></div>";
}

std::string with_greek(std::string text) {
  for (std::size_t at = 0; (at = text.find("rho", at)) != std::string::npos; at += 2)
    text.replace(at, 3, "ρ");
  return text;
}

std::string missing_list(const CurveData& data, const std::string& x_name) {
  if (data.missing.empty()) return "<p class='soft'>No planned run is missing.</p>";
  std::string html = fmt::format("<p><strong>Missing: {} of {} planned runs.</strong></p><ul>",
                                 data.missing.size(), data.missing.size() + data.points.size());
  for (const MissingPoint& point : data.missing) {
    html += fmt::format("<li>{} {:g}", x_name == "rho" ? "ρ" : html_escaped(x_name), point.x);
    if (point.seed) html += fmt::format(", seed {}", *point.seed);
    html += fmt::format(": {}</li>", html_escaped(point.why));
  }
  return html + "</ul>";
}

}  // namespace

std::string html_escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string html_report(const FitReport& report, const std::string& title,
                        const Settings& settings) {
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
      "<meta name='viewport' content='width=device-width, "
      "initial-scale=1'><title>{0}</title><style>{1}</style></head><body>\n"
      "<h1>{0}</h1><p class='soft'>{2}</p>\n",
      html_escaped(title), kStyle, html_escaped(report.source));
  for (const CurveFit& fit : report.curves) {
    if (!fit.data.label.empty()) html += fmt::format("<h2>{}</h2>\n", html_escaped(fit.data.label));
    if (fit.u_curve)
      html += fmt::format("<p class='verdict'>{}</p>\n", html_escaped(with_greek(verdict(*fit.u_curve))));
    html += figure_svg(fit, report.x_name) + legend(fit) + "\n";
    html += fit.u_curve ? u_curve_tables(*fit.u_curve)
                        : log_linear_tables(*fit.log_linear, report.x_name);
    html += missing_list(fit.data, report.x_name) + level_table(fit, report.x_name) + "\n";
  }
  if (!settings.empty()) {
    html += "<h2>Settings</h2><div class='wide'><table>";
    for (const auto& [key, value] : settings)
      html += fmt::format("<tr><td>{}</td><td class='text'>{}</td></tr>", html_escaped(key),
                          html_escaped(value));
    html += "</table></div>\n";
  }
  return html + "</body></html>\n";
}

}  // namespace fulcrum::apps
