#pragma once
// Bootstrap of a fitted curve over points and seeds.
//
// A draw is the fitted curve plus two kinds of error. Every run gets a seed error, drawn from the
// deviations of runs from the mean of their level, grown by sqrt(n / (n − 1)) because a mean of n
// runs hides part of them. Every level gets a common point error, drawn from what the level means
// lie off the fit, scaled to the part of their variance that seed errors do not explain (all of it
// when no seed is repeated). Signs are drawn too. Few degrees of freedom ν leave the size of the
// errors uncertain, so each draw scales its errors by sqrt(ν / χ²(ν)), which gives the intervals
// the tails of Student's t.
//
// Deterministic: draw k is a pure function of the curve, the seed and k (Philox), whatever the
// number of threads.

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "apps/sweep/fit/curve.h"

namespace fulcrum::apps {

struct Interval {
  double low = 0.0, high = 0.0;
};

// The central part of the values, `level` of them (0.95: from the 2.5 % to the 97.5 % quantile,
// interpolated).
Interval central_interval(std::vector<double> values, double level);

class Bootstrap {
 public:
  // `fitted` holds the fit at each level; `parameters` is the number of degrees of freedom that it
  // used.
  Bootstrap(const Curve& curve, std::vector<double> fitted, int parameters, std::uint64_t seed);

  // False when nothing tells the size of the errors: no seed is repeated and no level is left over
  // by the fit.
  bool possible() const { return freedom_ > 0; }
  Curve draw(std::uint64_t index) const;

 private:
  Curve shape_;
  std::vector<double> fitted_;
  std::vector<double> seed_errors_;
  std::vector<double> point_errors_;
  std::int64_t freedom_ = 0;
  std::uint64_t seed_;
};

}  // namespace fulcrum::apps
