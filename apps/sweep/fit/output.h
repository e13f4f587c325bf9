#pragma once
// Fits of a data set, and how they are shown: JSON for programs, a table and a plot of characters
// for people.
//
// JSON of one curve: {flops?, edge: "low"|"high"|null, points: [{rho, loss, seed?}], missing:
// [{rho, seed?, why}], range: [low, high], noise, parabola: {rho, loss, interval, loss_interval,
// edge, …}, physical: {…}}. rho, loss and interval are null where no optimum may be claimed (an
// edge, too few points: `reason` says); `minimum` then still holds the lowest point of the form
// within the range. Several curves: {budgets: [curve, …]}.

#include <nlohmann/json.hpp>
#include <string>

#include "apps/sweep/fit/dataset.h"
#include "apps/sweep/fit/log_linear.h"
#include "apps/sweep/fit/u_curve.h"

namespace fulcrum::apps {

struct CurveFit {
  CurveData data;
  std::optional<UCurve> u_curve;
  std::optional<LogLinearFit> log_linear;
};

struct FitReport {
  std::string source;
  FitKind kind = FitKind::u_curve;
  std::string x_name;
  std::vector<CurveFit> curves;
};

FitReport fit_dataset(const Dataset& dataset, const UCurveOptions& options = {});

nlohmann::ordered_json to_json(const FitReport& report);
// `width` in characters.
std::string to_text(const FitReport& report, int width = 80);

// "low", "high" or "none".
const char* name_of(Edge edge);
// One sentence on where the optimum is, or why none is claimed.
std::string verdict(const UCurve& fit);

}  // namespace fulcrum::apps
