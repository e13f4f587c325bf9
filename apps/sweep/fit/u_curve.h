#pragma once
// The fit of one U-shaped curve: both forms, their optima with bootstrap intervals, and the refusal
// of an optimum at the edge of what was measured.
//
// An optimum is reported only inside the measured range. When a form's minimum, taken over (0, 1],
// lies at or beyond the smallest or largest measured ρ, that form reports an edge. The curve as a
// whole has an edge when the best measured level is an end of the range, or the physical form (the
// parabola, where there is none) says so; then no form reports an optimum.

#include <optional>
#include <string>

#include "apps/sweep/fit/bootstrap.h"
#include "apps/sweep/fit/curve.h"
#include "apps/sweep/fit/parabola.h"
#include "apps/sweep/fit/physical.h"

namespace fulcrum::apps {

enum class Edge : std::uint8_t { none, low, high };

struct UCurveOptions {
  std::int64_t draws = 1000;  // of the bootstrap; 0: no intervals
  double confidence = 0.95;
  std::uint64_t seed = 0;
};

// What one form says about the curve. Everything but `reason` is meaningful only when `fitted`.
struct Optimum {
  bool fitted = false;
  std::string reason;  // why not
  Edge edge = Edge::none;
  double rho = 0.0;  // lowest point of the form within the measured range
  double loss = 0.0;
  std::optional<Interval> rho_interval, loss_interval;
  double edge_share = 0.0;    // of the draws whose minimum lies at an end of the measured range
  double rms_residual = 0.0;  // of the runs
};

struct UCurve {
  Curve curve;
  UCurveOptions options;
  double noise = 0.0;  // σ of a single run
  Edge edge = Edge::none;
  std::optional<Parabola> parabola;
  std::optional<Physical> physical;
  Optimum parabola_optimum, physical_optimum;

  // True when this form's optimum may be reported as one.
  bool claims(const Optimum& optimum) const {
    return optimum.fitted && optimum.edge == Edge::none && edge == Edge::none;
  }
};

// Points need ρ in (0, 1] and finite losses. Few points are no error: forms that need more say so.
UCurve fit_u_curve(const std::vector<Point>& points, const UCurveOptions& options = {});

}  // namespace fulcrum::apps
