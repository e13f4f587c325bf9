#include "apps/sweep/fit/u_curve.h"

#include <cmath>

#include "tests/apps/sweep/fit/published.h"
#include "tests/catch.h"

using namespace fulcrum::apps;
using fulcrum::testing::points_of;

namespace {

std::vector<Point> sample(const std::vector<double>& x, double (*loss)(double)) {
  std::vector<double> y;
  for (const double v : x) y.push_back(loss(v));
  return points_of(x, y);
}

}  // namespace

TEST_CASE("the parabola meets the vertices of the published sweeps", "[unit][sweep]") {
  const UCurve small = fit_u_curve(fulcrum::testing::published_2e20());
  const UCurve large = fit_u_curve(fulcrum::testing::published_6e20());
  CHECK(small.parabola_optimum.rho == Approx(0.725).margin(0.001));
  CHECK(small.parabola_optimum.loss == Approx(1.8162).margin(0.0001));
  CHECK(large.parabola_optimum.rho == Approx(0.738).margin(0.001));
  CHECK(large.parabola_optimum.loss == Approx(1.7107).margin(0.0001));
  CHECK(small.edge == Edge::none);
  CHECK(large.edge == Edge::none);
  SECTION("the physical form follows the steep right end and lies closer to the points") {
    for (const UCurve* fit : {&small, &large}) {
      CHECK(fit->physical_optimum.rms_residual < 0.5 * fit->parabola_optimum.rms_residual);
      CHECK(fit->physical_optimum.rho > 0.78);
      CHECK(fit->physical_optimum.rho < 0.85);
      REQUIRE(fit->physical_optimum.rho_interval);
      CHECK(fit->physical_optimum.rho_interval->low < fit->physical_optimum.rho);
      CHECK(fit->physical_optimum.rho_interval->high > fit->physical_optimum.rho);
    }
  }
}

TEST_CASE("a curve of the physical form is recovered without noise", "[unit][sweep]") {
  const Physical truth{.c = 1.6, .a = 0.05, .b = 0.02, .alpha = 0.8, .beta = 0.4, .delta = 0.06};
  std::vector<Point> points;
  for (const double rho : {0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0})
    points.push_back({rho, truth(rho), {}, {}});
  const UCurve fit = fit_u_curve(points, {.draws = 0});
  CHECK(fit.physical_optimum.rho == Approx(truth.argmin(0.01, 1.0)).margin(2e-3));
  CHECK(fit.physical_optimum.rms_residual < 1e-4);
  CHECK_FALSE(fit.physical_optimum.rho_interval);
}

TEST_CASE("the argmin of the physical form is where its derivative vanishes", "[unit][sweep]") {
  const Physical curve{.c = 1.0, .a = 0.1, .b = 0.03, .alpha = 0.7, .beta = 0.5, .delta = 0.05};
  const double rho = curve.argmin(0.05, 1.0);
  CHECK(std::abs(curve.derivative(rho)) < 1e-9);
  const double h = 1e-6;
  CHECK(curve.derivative(0.6) == Approx((curve(0.6 + h) - curve(0.6 - h)) / (2 * h)).epsilon(1e-6));
  CHECK(curve.argmin(0.05, 0.3) == 0.3);
  CHECK(curve.argmin(0.95, 1.0) == 0.95);
}

TEST_CASE("an optimum at an end of the range is an edge", "[unit][sweep]") {
  const std::vector<double> x = {0.4, 0.5, 0.6, 0.7, 0.85, 1.0};
  SECTION("falling to the largest rho") {
    const UCurve fit = fit_u_curve(sample(x, [](double r) { return 2.0 + 0.1 / r; }));
    CHECK(fit.edge == Edge::high);
    CHECK(fit.physical_optimum.edge == Edge::high);
    CHECK_FALSE(fit.claims(fit.parabola_optimum));
    CHECK_FALSE(fit.claims(fit.physical_optimum));
  }
  SECTION("rising from the smallest rho") {
    const UCurve fit = fit_u_curve(sample(x, [](double r) { return 2.0 + 0.01 / (1.05 - r); }));
    CHECK(fit.edge == Edge::low);
    CHECK(fit.physical_optimum.edge == Edge::low);
  }
  SECTION("a vertex just beyond the measured range") {
    const UCurve fit = fit_u_curve(
        sample({0.3, 0.4, 0.5, 0.6, 0.7}, [](double r) { return 2.0 + (r - 0.72) * (r - 0.72); }));
    CHECK(fit.edge == Edge::high);
    CHECK(fit.parabola_optimum.edge == Edge::high);
  }
  SECTION("a cap instead of a valley") {
    const UCurve fit = fit_u_curve(sample(x, [](double r) { return 2.0 - (r - 0.6) * (r - 0.6); }));
    CHECK(fit.edge == Edge::high);
    CHECK(fit.parabola_optimum.edge == Edge::high);
  }
}

TEST_CASE("forms that need more points say so", "[unit][sweep]") {
  const UCurve two = fit_u_curve(points_of({0.5, 1.0}, {2.0, 2.1}));
  CHECK_FALSE(two.parabola_optimum.fitted);
  CHECK(two.parabola_optimum.reason.find("needs 3") != std::string::npos);
  const UCurve four = fit_u_curve(points_of({0.4, 0.6, 0.8, 1.0}, {2.1, 2.0, 2.01, 2.2}));
  CHECK(four.parabola_optimum.fitted);
  CHECK_FALSE(four.physical_optimum.fitted);
  CHECK(four.claims(four.parabola_optimum));
  const UCurve none = fit_u_curve({});
  CHECK_FALSE(none.parabola);
  const UCurve exact = fit_u_curve(points_of({0.4, 0.7, 1.0}, {2.1, 2.0, 2.2}));
  CHECK_FALSE(exact.parabola_optimum.rho_interval);  // nothing tells the noise
}

TEST_CASE("fits do not depend on the order of rows or on the number of threads", "[unit][sweep]") {
  std::vector<Point> points;
  for (const double rho : {0.4, 0.6, 0.75, 0.9, 1.0})
    for (std::int64_t seed = 0; seed < 3; ++seed)
      points.push_back(
          {rho, 2.0 + 0.2 * std::pow(rho - 0.7, 2) + 0.003 * std::sin(7.0 * rho + seed), seed, {}});
  const UCurve one = fit_u_curve(points);
  std::vector<Point> shuffled(points.rbegin(), points.rend());
  const UCurve two = fit_u_curve(shuffled);
  CHECK(one.physical_optimum.rho == two.physical_optimum.rho);
  CHECK(one.physical_optimum.rho_interval->low == two.physical_optimum.rho_interval->low);
  CHECK(one.physical_optimum.rho_interval->high == two.physical_optimum.rho_interval->high);
  const UCurve other = fit_u_curve(points, {.seed = 1});
  CHECK(other.physical_optimum.rho_interval->low != one.physical_optimum.rho_interval->low);
}

TEST_CASE("one wild run moves the physical fit little", "[unit][sweep]") {
  std::vector<Point> points;
  for (const double rho : {0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0})
    for (std::int64_t seed = 0; seed < 3; ++seed)
      points.push_back({rho, 2.0 + 0.2 * std::pow(rho - 0.7, 2) + 0.001 * (seed - 1), seed, {}});
  const double before = fit_u_curve(points, {.draws = 0}).physical_optimum.rho;
  points[4].loss += 0.02;
  const UCurve after = fit_u_curve(points, {.draws = 0});
  CHECK(std::abs(after.physical_optimum.rho - before) < 0.02);
}
