#include "apps/sweep/fit/physical.h"

#include <algorithm>
#include <cmath>
#include <nlopt.hpp>
#include <stdexcept>
#include <vector>

#include "framework/core/error.h"

namespace fulcrum::apps {
namespace {

using Theta = std::array<double, 3>;  // ln α, ln β, ln δ

constexpr double kHuber = 1.345;  // 95 % efficient for normal noise
constexpr Theta kPriorMean = {0.0, -0.7, -2.3};
constexpr Theta kPriorSpread = {1.0, 1.0, 1.0};
constexpr Theta kLow = {-3.5, -3.5, -7.0};
constexpr Theta kHigh = {2.5, 2.0, 0.7};
constexpr int kRounds = 30;
constexpr int kScaleRounds = 5;

// Values of the two basis functions at one level. They are shifted and scaled so that they stay
// distinct from the constant as their exponents go to zero: (ρ^(−α) − 1)/α → −ln ρ.
struct Basis {
  double experts, memory;
};

Basis basis_at(double rho, double alpha, double beta, double delta) {
  return {std::expm1(-alpha * std::log(rho)) / alpha,
          (std::pow(1.0 - rho + delta, -beta) - std::pow(1.0 + delta, -beta)) / beta};
}

struct Linear {
  double constant = 0.0, experts = 0.0, memory = 0.0;
  double at(const Basis& f) const { return constant + experts * f.experts + memory * f.memory; }
};

double huber(double z) {
  const double size = std::abs(z);
  return size <= kHuber ? 0.5 * z * z : kHuber * (size - 0.5 * kHuber);
}

// The linear coefficients for given exponents, and the objective without the prior.
class Projection {
 public:
  Projection(const Curve& curve, double sigma) : curve_(curve), sigma_(sigma) {
    weights_.resize(curve.levels.size());
    targets_.resize(curve.levels.size());
    basis_.resize(curve.levels.size());
  }

  double solve(double alpha, double beta, double delta) {
    for (std::size_t i = 0; i < basis_.size(); ++i)
      basis_[i] = basis_at(curve_.levels[i].x, alpha, beta, delta);
    bool first = true;
    double previous = HUGE_VAL;
    double value = 0.0;
    for (int round = 0; round < kRounds; ++round) {
      reweight(first);
      first = false;
      linear_ = weighted();
      value = cost();
      if (previous - value <= 1e-13 * (1.0 + value)) break;
      previous = value;
    }
    return value;
  }

  // Derivatives of the objective by (ln α, ln β, ln δ); the linear coefficients are optimal, so
  // they stay fixed.
  Theta gradient(double alpha, double beta, double delta) const {
    Theta g{};
    for (std::size_t i = 0; i < basis_.size(); ++i) {
      double pull = 0.0;  // −∂objective/∂model
      for (const double loss : curve_.levels[i].losses)
        pull += std::clamp((loss - linear_.at(basis_[i])) / sigma_, -kHuber, kHuber) / sigma_;
      const double rho = curve_.levels[i].x;
      const double u = 1.0 - rho + delta;
      const double v = 1.0 + delta;
      const double d_alpha = -std::log(rho) * std::pow(rho, -alpha) - basis_[i].experts;
      const double d_beta =
          -std::log(u) * std::pow(u, -beta) + std::log(v) * std::pow(v, -beta) - basis_[i].memory;
      const double d_delta = -delta * (std::pow(u, -beta - 1.0) - std::pow(v, -beta - 1.0));
      g[0] -= pull * linear_.experts * d_alpha;
      g[1] -= pull * linear_.memory * d_beta;
      g[2] -= pull * linear_.memory * d_delta;
    }
    return g;
  }

  const Linear& linear() const { return linear_; }

 private:
  void reweight(bool plain) {
    for (std::size_t i = 0; i < basis_.size(); ++i) {
      double weight = 0.0, sum = 0.0;
      for (const double loss : curve_.levels[i].losses) {
        double w = 1.0;
        if (!plain) {
          const double size = std::abs(loss - linear_.at(basis_[i])) / sigma_;
          if (size > kHuber) w = kHuber / size;
        }
        weight += w;
        sum += w * loss;
      }
      weights_[i] = weight;
      targets_[i] = sum / weight;
    }
  }

  double cost() const {
    double sum = 0.0;
    for (std::size_t i = 0; i < basis_.size(); ++i)
      for (const double loss : curve_.levels[i].losses)
        sum += huber((loss - linear_.at(basis_[i])) / sigma_);
    return sum;
  }

  // Weighted least squares with both slopes at least zero.
  Linear weighted() const {
    double total = 0.0, mean_e = 0.0, mean_m = 0.0, mean_y = 0.0;
    for (std::size_t i = 0; i < basis_.size(); ++i) {
      total += weights_[i];
      mean_e += weights_[i] * basis_[i].experts;
      mean_m += weights_[i] * basis_[i].memory;
      mean_y += weights_[i] * targets_[i];
    }
    mean_e /= total, mean_m /= total, mean_y /= total;
    double ee = 0.0, em = 0.0, mm = 0.0, ey = 0.0, my = 0.0;
    for (std::size_t i = 0; i < basis_.size(); ++i) {
      const double e = basis_[i].experts - mean_e;
      const double m = basis_[i].memory - mean_m;
      const double y = targets_[i] - mean_y;
      ee += weights_[i] * e * e;
      em += weights_[i] * e * m;
      mm += weights_[i] * m * m;
      ey += weights_[i] * e * y;
      my += weights_[i] * m * y;
    }
    const double determinant = ee * mm - em * em;
    double experts = -1.0, memory = -1.0;
    if (determinant > 1e-12 * ee * mm) {
      experts = (ey * mm - my * em) / determinant;
      memory = (my * ee - ey * em) / determinant;
    }
    if (experts < 0.0 || memory < 0.0) {
      // The better of the two edges of the quadrant; each explains slope² · variance.
      const double only_e = ee > 0.0 ? std::max(0.0, ey / ee) : 0.0;
      const double only_m = mm > 0.0 ? std::max(0.0, my / mm) : 0.0;
      const bool keep_e = only_e * only_e * ee >= only_m * only_m * mm;
      experts = keep_e ? only_e : 0.0;
      memory = keep_e ? 0.0 : only_m;
    }
    return {mean_y - experts * mean_e - memory * mean_m, experts, memory};
  }

  const Curve& curve_;
  double sigma_;
  std::vector<double> weights_, targets_;
  std::vector<Basis> basis_;
  Linear linear_;
};

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

// Residual variance of the polynomial of degree `degree` through the level means (Gram–Schmidt on
// powers of centred x).
double polynomial_variance(const Curve& curve, int degree) {
  const std::size_t n = curve.levels.size();
  const double middle = 0.5 * (curve.first() + curve.last());
  const double half = 0.5 * (curve.last() - curve.first());
  std::vector<double> residual = curve.means();
  std::vector<std::vector<double>> done;
  for (int power = 0; power <= degree; ++power) {
    std::vector<double> column(n);
    for (std::size_t i = 0; i < n; ++i)
      column[i] = std::pow((curve.levels[i].x - middle) / half, power);
    const auto remove = [n](std::vector<double>& from, const std::vector<double>& unit) {
      double dot = 0.0;
      for (std::size_t i = 0; i < n; ++i) dot += from[i] * unit[i];
      for (std::size_t i = 0; i < n; ++i) from[i] -= dot * unit[i];
    };
    for (const auto& unit : done) remove(column, unit);
    double norm = 0.0;
    for (const double v : column) norm += v * v;
    for (double& v : column) v /= std::sqrt(norm);
    remove(residual, column);
    done.push_back(std::move(column));
  }
  double sum = 0.0;
  for (const double r : residual) sum += r * r;
  return sum / static_cast<double>(static_cast<int>(n) - degree - 1);
}

double least_scale(const Curve& curve) {
  const std::vector<double> means = curve.means();
  const auto [low, high] = std::minmax_element(means.begin(), means.end());
  return std::max(1e-4 * (*high - *low), 1e-9);
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

double noise_scale(const Curve& curve) {
  double variance = curve.seed_variance();
  const int levels = static_cast<int>(curve.levels.size());
  if (curve.seed_freedom() == 0 && levels >= 4)
    variance = polynomial_variance(curve, levels >= 6 ? 3 : 2);
  return std::max(std::sqrt(variance), least_scale(curve));
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
