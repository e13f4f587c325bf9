#pragma once
// The quadratic that iso-budget studies draw: loss(ρ) = c + m·(ρ − x̄) + q·(ρ − x̄)², least squares
// over every run. It is symmetric while measured curves are not, so its vertex is biased towards
// the shallow side of a wide window; read it beside the physical form.

#include "apps/sweep/fit/curve.h"

namespace fulcrum::apps {

struct Parabola {
  double center = 0.0;  // x̄
  double constant = 0.0;
  double slope = 0.0;
  double curvature = 0.0;

  static constexpr int kParameters = 3;
  double operator()(double x) const {
    const double t = x - center;
    return constant + t * (slope + t * curvature);
  }
  // Where it is lowest within [low, high]: the vertex, or an end when the vertex lies outside or
  // the curve opens downwards.
  double argmin(double low, double high) const;
};

// Needs three levels.
Parabola fit_parabola(const Curve& curve);

}  // namespace fulcrum::apps
