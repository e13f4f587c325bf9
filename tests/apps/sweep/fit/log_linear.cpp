#include "apps/sweep/fit/log_linear.h"

#include <cmath>

#include "apps/sweep/fit/u_curve.h"
#include "tests/apps/sweep/fit/published.h"
#include "tests/catch.h"

using namespace fulcrum::apps;
using fulcrum::testing::points_of;

TEST_CASE("the log-linear law meets the published memory scaling", "[unit][sweep]") {
  std::vector<Point> points =
      points_of({2.586e5, 6.464e5, 1.293e6, 1.939e6, 2.586e6, 3.878e6, 6.464e6, 1.034e7},
                {1.7883, 1.7760, 1.7678, 1.7654, 1.7603, 1.7527, 1.7481, 1.7432});
  points.push_back({0.0, 1.8082, {}, {}});
  const LogLinearFit fit = fit_log_linear(points, UCurveOptions{});
  REQUIRE(fit.fitted);
  CHECK(fit.law.intercept == Approx(1.7714).margin(1e-4));
  CHECK(fit.law.slope == Approx(-0.02839).margin(2e-5));
  CHECK(fit.law.per_doubling() == Approx(-0.0085).margin(1e-4));
  CHECK(*fit.baseline == 1.8082);
  CHECK(fit.slope_interval->low < fit.law.slope);
  CHECK(fit.slope_interval->high > fit.law.slope);
  CHECK(fit.slope_interval->high - fit.slope_interval->low < 0.006);
}

TEST_CASE("one number of slots makes no law", "[unit][sweep]") {
  const LogLinearFit fit =
      fit_log_linear(points_of({1e6, 1e6, 0.0}, {2.0, 2.1, 2.2}), UCurveOptions{});
  CHECK_FALSE(fit.fitted);
  CHECK(fit.reason.find("needs 2") != std::string::npos);
}
