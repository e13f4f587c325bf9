#include "apps/sweep/fit/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "framework/core/philox.h"

namespace fulcrum::apps {
namespace {

double quantile(const std::vector<double>& sorted, double share) {
  const double position = share * static_cast<double>(sorted.size() - 1);
  const std::size_t below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// Numbers of one draw, in order.
class Sequence {
 public:
  Sequence(std::uint64_t seed, std::uint64_t draw)
      : random_(seed, stream_of("sweep.bootstrap") + draw) {}

  // An entry of the pool with a random sign.
  double pick(const std::vector<double>& pool) {
    const double value = pool[random_.below(next_++, pool.size())];
    return (random_.bits(2 * next_++) & 1u) != 0 ? value : -value;
  }
  double chi_square(std::int64_t freedom) {
    double sum = 0.0;
    for (std::int64_t i = 0; i < freedom; ++i) {
      // `below` uses words 2i and 2i + 1 of its index, so the pairs of this loop do not overlap
      // with it.
      const double radius = -2.0 * std::log(random_.uniform(2 * next_));
      const double angle = std::cos(2.0 * std::numbers::pi * random_.uniform(2 * next_ + 1));
      ++next_;
      sum += radius * angle * angle;
    }
    return sum;
  }

 private:
  Random random_;
  std::uint64_t next_ = 0;
};

}  // namespace

Interval central_interval(std::vector<double> values, double level) {
  std::sort(values.begin(), values.end());
  return {quantile(values, 0.5 * (1.0 - level)), quantile(values, 0.5 * (1.0 + level))};
}

Bootstrap::Bootstrap(const Curve& curve, std::vector<double> fitted, int parameters,
                     std::uint64_t seed)
    : shape_(curve), fitted_(std::move(fitted)), seed_(seed) {
  double explained = 0.0;  // mean over levels of the variance that seeds give a level mean
  const double variance = curve.seed_variance();
  const std::int64_t levels = static_cast<std::int64_t>(curve.levels.size());
  for (const Level& level : curve.levels) {
    const double n = static_cast<double>(level.losses.size());
    explained += variance / n / static_cast<double>(levels);
    if (level.losses.size() < 2) continue;
    const double mean = level.mean();
    for (const double loss : level.losses)
      seed_errors_.push_back((loss - mean) * std::sqrt(n / (n - 1.0)));
  }
  freedom_ = curve.seed_freedom();
  const std::int64_t left = levels - parameters;
  if (left <= 0) return;
  freedom_ += left;
  double square = 0.0;
  for (std::int64_t i = 0; i < levels; ++i) {
    point_errors_.push_back(curve.levels[i].mean() - fitted_[i]);
    square += point_errors_.back() * point_errors_.back();
  }
  const double excess = square / static_cast<double>(left) - explained;
  const double scale =
      excess > 0.0 && square > 0.0 ? std::sqrt(excess * static_cast<double>(levels) / square) : 0.0;
  for (double& error : point_errors_) error *= scale;
}

Curve Bootstrap::draw(std::uint64_t index) const {
  Sequence sequence(seed_, index);
  const double scale = std::sqrt(static_cast<double>(freedom_) / sequence.chi_square(freedom_));
  Curve curve = shape_;
  for (std::size_t i = 0; i < curve.levels.size(); ++i) {
    const double point = point_errors_.empty() ? 0.0 : sequence.pick(point_errors_);
    for (double& loss : curve.levels[i].losses) {
      const double run = seed_errors_.empty() ? 0.0 : sequence.pick(seed_errors_);
      loss = fitted_[i] + scale * (point + run);
    }
  }
  return curve;
}

}  // namespace fulcrum::apps
