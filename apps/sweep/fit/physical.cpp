#include "apps/sweep/fit/physical.h"

#include <algorithm>
#include <cmath>
#include <nlopt.hpp>
#include <stdexcept>
#include <vector>

#include "apps/sweep/fit/noise.h"
#include "apps/sweep/fit/projection.h"
#include "framework/core/error.h"

namespace fulcrum::apps {
namespace {

using Theta = std::array<double, 3>;  // ln α, ln β, ln δ

constexpr Theta kPriorMean = {0.0, -0.7, -2.3};
constexpr Theta kPriorSpread = {1.0, 1.0, 1.0};
constexpr Theta kLow = {-3.5, -3.5, -7.0};
constexpr Theta kHigh = {2.5, 2.0, 0.7};
constexpr int kScaleRounds = 5;

struct Search {
  Projection& projection;
  std::vector<double> best;  // the lowest point seen
  double lowest = HUGE_VAL;
};

double objective(const std::vector<double>& theta, std::vector<double>& gradient, void* data) {
  auto& search = *static_cast<Search*>(data);
  const double alpha = std::exp(theta[0]), beta = std::exp(theta[1]), delta = std::exp(theta[2]);
  double value = search.projection.solve(alpha, beta, delta);
  if (!gradient.empty()) {
    const Theta g = search.projection.gradient(alpha, beta, delta);
    std::copy(g.begin(), g.end(), gradient.begin());
  }
  for (std::size_t k = 0; k < 3; ++k) {
    const double z = (theta[k] - kPriorMean[k]) / kPriorSpread[k];
    value += 0.5 * z * z;
    if (!gradient.empty()) gradient[k] += z / kPriorSpread[k];
  }
  if (value < search.lowest) {
    search.lowest = value;
    search.best = theta;
  }
  return value;
}

Physical search(Projection& projection, const Theta& start) {
  std::vector<double> theta(start.begin(), start.end());
  for (std::size_t k = 0; k < 3; ++k) theta[k] = std::clamp(theta[k], kLow[k], kHigh[k]);
  Search state{projection, theta};
  nlopt::opt optimizer(nlopt::LD_SLSQP, 3);
  optimizer.set_lower_bounds({kLow.begin(), kLow.end()});
  optimizer.set_upper_bounds({kHigh.begin(), kHigh.end()});
  optimizer.set_min_objective(objective, &state);
  optimizer.set_ftol_abs(1e-9);
  optimizer.set_xtol_abs(1e-7);
  optimizer.set_maxeval(200);
  double value = 0.0;
  try {
    optimizer.optimize(theta, value);
  } catch (const std::runtime_error&) {
    // SLSQP gives up where rounding limits it and in rare failures of its inner solver; the lowest
    // point seen is the answer then too.
  }
  theta = state.best;
  std::vector<double> none;
  Physical fit;
  fit.objective = objective(theta, none, &state);
  const Linear& linear = projection.linear();
  fit.alpha = std::exp(theta[0]), fit.beta = std::exp(theta[1]), fit.delta = std::exp(theta[2]);
  fit.a = linear.experts / fit.alpha;
  fit.b = linear.memory / fit.beta;
  fit.c = linear.constant - fit.a - fit.b * std::pow(1.0 + fit.delta, -fit.beta);
  for (std::size_t k = 0; k < 3; ++k)
    fit.at_bound = fit.at_bound || theta[k] < kLow[k] + 1e-4 || theta[k] > kHigh[k] - 1e-4;
  return fit;
}

void require_levels(const Curve& curve) {
  FULCRUM_CHECK(
      curve.levels.size() >= Physical::kLevels && curve.first() > 0.0 && curve.last() <= 1.0,
      "the physical form needs {} levels within (0, 1]", Physical::kLevels);
}

Physical search_grid(const Curve& curve, double sigma) {
  Projection projection(curve, sigma);
  Physical best;
  best.objective = HUGE_VAL;
  for (const double alpha : {0.1, 1.0, 5.0}) {
    for (const double beta : {0.1, 0.6, 3.0}) {
      for (const double delta : {0.01, 0.1, 0.5}) {
        const Physical fit = search(projection, {std::log(alpha), std::log(beta), std::log(delta)});
        if (fit.objective < best.objective - 1e-9) best = fit;
      }
    }
  }
  return best;
}

}  // namespace

double Physical::operator()(double rho) const {
  return c + a * std::pow(rho, -alpha) + b * std::pow(1.0 - rho + delta, -beta);
}

double Physical::derivative(double rho) const {
  return -a * alpha * std::pow(rho, -alpha - 1.0) +
         b * beta * std::pow(1.0 - rho + delta, -beta - 1.0);
}

double Physical::argmin(double low, double high) const {
  if (derivative(high) <= 0.0) return high;
  if (derivative(low) >= 0.0) return low;
  for (int step = 0; step < 60; ++step) {
    const double middle = 0.5 * (low + high);
    (derivative(middle) < 0.0 ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

Physical fit_physical(const Curve& curve, double* sigma) {
  require_levels(curve);
  Physical best = search_grid(curve, *sigma);
  if (curve.seed_freedom() != 0) return best;
  for (int round = 0; round < kScaleRounds; ++round) {
    double square = 0.0;
    for (const Level& level : curve.levels) square += std::pow(level.mean() - best(level.x), 2);
    const double freedom = static_cast<double>(curve.levels.size()) - Physical::kParameters;
    const double scale = std::max(std::sqrt(square / freedom), least_scale(curve));
    if (scale > 0.95 * *sigma) break;
    *sigma = scale;
    best = search_grid(curve, scale);
  }
  return best;
}

Physical refit_physical(const Curve& curve, double sigma, const Physical& start) {
  require_levels(curve);
  Projection projection(curve, sigma);
  return search(projection, {std::log(start.alpha), std::log(start.beta), std::log(start.delta)});
}

}  // namespace fulcrum::apps
