#pragma once
// Variable projection for the physical form (physical.h): for given exponents the model is linear
// in its other three coefficients, which are found here.

#include <array>
#include <vector>

#include "apps/sweep/fit/curve.h"

namespace fulcrum::apps {

// Values of the two basis functions at one level. They are shifted and scaled so that they stay
// distinct from the constant as their exponents go to zero: (ρ^(−α) − 1)/α → −ln ρ.
struct Basis {
  double experts, memory;
};

struct Linear {
  double constant = 0.0, experts = 0.0, memory = 0.0;
  double at(const Basis& f) const { return constant + experts * f.experts + memory * f.memory; }
};

// The sum of Huber terms of a curve's residuals in units of the noise, lowest over the linear
// coefficients with both slopes at least zero: iteratively reweighted least squares.
class Projection {
 public:
  Projection(const Curve& curve, double sigma);

  // The lowest sum, whose coefficients are linear().
  double solve(double alpha, double beta, double delta);
  // Its derivatives by (ln α, ln β, ln δ) after solve() for them; the linear coefficients are
  // optimal, so they stay fixed.
  std::array<double, 3> gradient(double alpha, double beta, double delta) const;

  const Linear& linear() const { return linear_; }

 private:
  void reweight(bool plain);
  double cost() const;
  Linear weighted() const;

  const Curve& curve_;
  double sigma_;
  std::vector<double> weights_, targets_;
  std::vector<Basis> basis_;
  Linear linear_;
};

}  // namespace fulcrum::apps
