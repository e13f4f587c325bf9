#include "apps/sweep/fit/parabola.h"

#include <algorithm>

#include "framework/core/error.h"

namespace fulcrum::apps {

double Parabola::argmin(double low, double high) const {
  if (curvature > 0.0) return std::clamp(center - slope / (2.0 * curvature), low, high);
  return (*this)(low) < (*this)(high) ? low : high;
}

Parabola fit_parabola(const Curve& curve) {
  FULCRUM_CHECK(curve.levels.size() >= 3, "a parabola needs three levels, got {}",
                curve.levels.size());
  const double n = static_cast<double>(curve.count());
  Parabola p;
  for (const Level& level : curve.levels)
    p.center += level.x * static_cast<double>(level.losses.size()) / n;
  // With t centred, the regressors are t and t² less its mean.
  double square = 0.0, loss = 0.0;
  for (const Level& level : curve.levels) {
    const double weight = static_cast<double>(level.losses.size()) / n;
    square += weight * (level.x - p.center) * (level.x - p.center);
    loss += weight * level.mean();
  }
  double tt = 0.0, tq = 0.0, qq = 0.0, ty = 0.0, qy = 0.0;
  for (const Level& level : curve.levels) {
    const double weight = static_cast<double>(level.losses.size()) / n;
    const double t = level.x - p.center;
    const double q = t * t - square;
    const double y = level.mean() - loss;
    tt += weight * t * t;
    tq += weight * t * q;
    qq += weight * q * q;
    ty += weight * t * y;
    qy += weight * q * y;
  }
  const double determinant = tt * qq - tq * tq;
  p.slope = (ty * qq - qy * tq) / determinant;
  p.curvature = (qy * tt - ty * tq) / determinant;
  p.constant = loss - p.curvature * square;
  return p;
}

}  // namespace fulcrum::apps
