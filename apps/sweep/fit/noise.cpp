#include "apps/sweep/fit/noise.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace fulcrum::apps {
namespace {

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

}  // namespace

double least_scale(const Curve& curve) {
  const std::vector<double> means = curve.means();
  const auto [low, high] = std::minmax_element(means.begin(), means.end());
  return std::max(1e-4 * (*high - *low), 1e-9);
}

double noise_scale(const Curve& curve) {
  double variance = curve.seed_variance();
  const int levels = static_cast<int>(curve.levels.size());
  if (curve.seed_freedom() == 0 && levels >= 4)
    variance = polynomial_variance(curve, levels >= 6 ? 3 : 2);
  return std::max(std::sqrt(variance), least_scale(curve));
}

}  // namespace fulcrum::apps
