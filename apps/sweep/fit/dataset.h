#pragma once
// What a fit reads: the runs of one or several curves, and which planned runs have no result.

#include <optional>
#include <string>
#include <vector>

#include "apps/sweep/fit/curve.h"

namespace fulcrum::apps {

enum class FitKind : std::uint8_t { u_curve, log_linear };

struct MissingPoint {
  double x = 0.0;
  std::optional<std::int64_t> seed;
  std::string why;  // "pending", "failed", "no row", …
};

// The runs of one budget: one curve.
struct CurveData {
  std::string label;  // "flops 2e+20"; empty when there is only one curve
  std::optional<double> flops;
  std::vector<Point> points;
  std::vector<MissingPoint> missing;
};

struct Dataset {
  std::string source;
  FitKind kind = FitKind::u_curve;
  std::string x_name = "rho";
  std::vector<CurveData> curves;
};

// A table with the columns `rho,loss[,seed][,flops]` (u_curve) or `slots,loss[,seed][,flops]`
// (log_linear), in any order. Blank lines and lines that start with # are skipped. Rows of one
// value of flops make one curve. Without seeds equal ρ are repeats; with seeds a repeated (ρ, seed)
// is an error, and a seed that several ρ have and another lacks is missing there. Throws UserError
// "FILE:LINE:COLUMN: …" for anything else.
Dataset read_csv(const std::string& path, FitKind kind);

}  // namespace fulcrum::apps
