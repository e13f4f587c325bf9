#include "apps/sweep/fit/curve.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

namespace fulcrum::apps {

double Level::mean() const {
  return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
}

std::int64_t Curve::count() const {
  std::int64_t n = 0;
  for (const Level& level : levels) n += static_cast<std::int64_t>(level.losses.size());
  return n;
}

std::vector<double> Curve::means() const {
  std::vector<double> means;
  for (const Level& level : levels) means.push_back(level.mean());
  return means;
}

std::size_t Curve::best() const {
  const std::vector<double> m = means();
  return static_cast<std::size_t>(std::min_element(m.begin(), m.end()) - m.begin());
}

std::int64_t Curve::seed_freedom() const {
  return count() - static_cast<std::int64_t>(levels.size());
}

double Curve::seed_variance() const {
  if (seed_freedom() == 0) return 0.0;
  double sum = 0.0;
  for (const Level& level : levels) {
    const double mean = level.mean();
    for (const double loss : level.losses) sum += (loss - mean) * (loss - mean);
  }
  return sum / static_cast<double>(seed_freedom());
}

Curve make_curve(std::vector<Point> points) {
  std::stable_sort(points.begin(), points.end(), [](const Point& a, const Point& b) {
    return std::tuple(a.x, a.seed, a.loss) < std::tuple(b.x, b.seed, b.loss);
  });
  Curve curve;
  for (const Point& point : points) {
    if (curve.levels.empty() || point.x - curve.last() > 1e-9 * std::max(1.0, std::abs(point.x)))
      curve.levels.push_back({point.x, {}});
    curve.levels.back().losses.push_back(point.loss);
  }
  return curve;
}

}  // namespace fulcrum::apps
