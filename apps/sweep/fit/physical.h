#pragma once
// The asymmetric form of the allocation law:
//
//   loss(ρ) = c + a·ρ^(−α) + b·((1 − ρ) + δ)^(−β),   a, b ≥ 0, α, β, δ > 0:
//
// a falling power of the experts' share, a falling power of the memory's share, and an offset δ
// (what the model remembers without any memory) that keeps ρ = 1 finite. Both terms are convex, so
// the curve has one minimum in (0, 1].
//
// Fit: the sum of Huber terms of the residuals in units of the noise σ, threshold 1.345, plus a
// weak normal prior on (ln α, ln β, ln δ) that decides only what the points leave open: few values
// of ρ do not determine six parameters. For given exponents the model is linear in (c, a, b); these
// are solved by iteratively reweighted least squares with a, b ≥ 0 (variable projection), and
// NLopt's SLSQP searches the other three from a grid of starts. Everything is deterministic.

#include <array>
#include <optional>

#include "apps/sweep/fit/curve.h"

namespace fulcrum::apps {

struct Physical {
  double c = 0.0, a = 0.0, b = 0.0;
  double alpha = 1.0, beta = 1.0, delta = 0.1;
  double objective = 0.0;
  bool at_bound = false;  // an exponent or the offset ended at a bound of the search

  // Degrees of freedom that the fit takes from the points; the prior holds the rest.
  static constexpr int kParameters = 4;
  static constexpr std::size_t kLevels = 5;  // least number of distinct ρ
  double operator()(double rho) const;
  double derivative(double rho) const;
  // The minimum within [low, high] of (0, 1].
  double argmin(double low, double high) const;
};

// Needs kLevels levels with ρ in (0, 1]. `sigma` is the noise scale at which the search begins.
// Without repeated seeds a polynomial may follow a steep curve badly and overstate the noise, so
// the fit is repeated with the scale of its own residuals while that is smaller; `sigma` returns
// the scale that was used.
Physical fit_physical(const Curve& curve, double* sigma);
// One search from `start` alone at a known scale: for bootstrap draws.
Physical refit_physical(const Curve& curve, double sigma, const Physical& start);

}  // namespace fulcrum::apps
