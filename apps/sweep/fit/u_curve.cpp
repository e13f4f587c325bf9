#include "apps/sweep/fit/u_curve.h"

#include <fmt/format.h>

#include <cmath>

#include "apps/sweep/fit/noise.h"

namespace fulcrum::apps {
namespace {

// Interval of the minimum of a form: every draw is fitted again by `refit`.
template <class Form, class Refit>
void bootstrap_minimum(const UCurve& u, const Form& form, Refit refit, Optimum& optimum) {
  std::vector<double> fitted;
  for (const Level& level : u.curve.levels) fitted.push_back(form(level.x));
  const Bootstrap bootstrap(u.curve, fitted, Form::kParameters, u.options.seed);
  if (!bootstrap.possible() || u.options.draws < 2) return;
  const std::int64_t draws = u.options.draws;
  const double low = u.curve.first(), high = u.curve.last();
  std::vector<double> rho(draws), loss(draws);
#pragma omp parallel for schedule(static)
  for (std::int64_t k = 0; k < draws; ++k) {
    const Form drawn = refit(bootstrap.draw(static_cast<std::uint64_t>(k)));
    rho[k] = drawn.argmin(low, high);
    loss[k] = drawn(rho[k]);
  }
  std::int64_t at_edge = 0;
  for (const double value : rho) at_edge += value <= low || value >= high;
  optimum.edge_share = static_cast<double>(at_edge) / static_cast<double>(draws);
  optimum.rho_interval = central_interval(std::move(rho), u.options.confidence);
  optimum.loss_interval = central_interval(std::move(loss), u.options.confidence);
}

template <class Form>
void find_minimum(const Curve& curve, const Form& form, Optimum& optimum) {
  optimum.fitted = true;
  optimum.rho = form.argmin(curve.first(), curve.last());
  optimum.loss = form(optimum.rho);
  if (optimum.rho <= curve.first()) optimum.edge = Edge::low;
  if (optimum.rho >= curve.last()) optimum.edge = Edge::high;
  double square = 0.0;
  for (const Level& level : curve.levels)
    for (const double loss : level.losses) square += std::pow(loss - form(level.x), 2);
  optimum.rms_residual = std::sqrt(square / static_cast<double>(curve.count()));
}

std::string too_few(std::size_t needed, std::size_t found) {
  return fmt::format("needs {} different values of rho, found {}", needed, found);
}

}  // namespace

UCurve fit_u_curve(const std::vector<Point>& points, const UCurveOptions& options) {
  UCurve u;
  u.curve = make_curve(points);
  u.options = options;
  const std::size_t levels = u.curve.levels.size();
  if (levels < 3) {
    u.parabola_optimum.reason = too_few(3, levels);
    u.physical_optimum.reason = too_few(Physical::kLevels, levels);
    return u;
  }
  u.noise = noise_scale(u.curve);

  u.parabola = fit_parabola(u.curve);
  find_minimum(u.curve, *u.parabola, u.parabola_optimum);
  bootstrap_minimum(u, *u.parabola, fit_parabola, u.parabola_optimum);

  if (levels >= Physical::kLevels) {
    u.physical = fit_physical(u.curve, &u.noise);
    find_minimum(u.curve, *u.physical, u.physical_optimum);
    const auto refit = [&u](const Curve& curve) {
      return refit_physical(curve, u.noise, *u.physical);
    };
    bootstrap_minimum(u, *u.physical, refit, u.physical_optimum);
  } else {
    u.physical_optimum.reason = too_few(Physical::kLevels, levels);
  }

  u.edge = u.physical ? u.physical_optimum.edge : u.parabola_optimum.edge;
  if (u.curve.best() == 0) u.edge = Edge::low;
  if (u.curve.best() + 1 == levels) u.edge = Edge::high;
  return u;
}

}  // namespace fulcrum::apps
