// Bias of the optimum and coverage of its interval on simulated sweeps with a known optimum: curves
// of the physical form and of other shapes, several budgets (levels of loss and depths of the
// valley), grids, numbers of seeds and sizes of noise.

#include <cmath>
#include <functional>
#include <numbers>
#include <string>

#include "apps/sweep/fit/u_curve.h"
#include "framework/core/philox.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::apps;

namespace {

struct Truth {
  std::string name;
  std::function<double(double)> loss;
  double rho = 0.0;  // its argmin
};

std::vector<Truth> truths() {
  std::vector<Truth> all = {
      {"physical",
       [](double r) { return 1.6 + 0.05 * std::pow(r, -0.8) + 0.02 * std::pow(1.06 - r, -0.4); }},
      {"logarithms",
       [](double r) { return 2.0 - 0.03 * std::log(r) - 0.012 * std::log(1.05 - r); }},
      {"quadratic", [](double r) { return 1.7 + 0.13 * (r - 0.72) * (r - 0.72); }},
      {"quartic",
       [](double r) {
         const double t = r - 0.8;
         return 3.0 + 0.1 * t * t + 0.15 * t * t * t + 0.3 * t * t * t * t;
       }},
      {"deep valley", [](double r) { return 5.0 + 0.2 / std::sqrt(r) + 0.05 / (1.15 - r); }},
  };
  for (Truth& truth : all) {
    double best = HUGE_VAL;
    for (int i = 1000; i <= 10000; ++i) {
      const double loss = truth.loss(i * 1e-4);
      if (loss < best) best = loss, truth.rho = i * 1e-4;
    }
  }
  return all;
}

struct Design {
  std::vector<double> grid;
  int seeds;
  double noise;  // as a share of the depth of the valley: loss(0.4) − loss(ρ*)
};

struct Tally {
  int sweeps = 0, covered = 0, loss_covered = 0;
  double error = 0.0, depth = 0.0;
};

double normal(const Random& random, std::uint64_t i) {
  return std::sqrt(-2.0 * std::log(random.uniform(2 * i))) *
         std::cos(2.0 * std::numbers::pi * random.uniform(2 * i + 1));
}

double depth_of(const Truth& truth, const Design& design) {
  return truth.loss(design.grid.front()) - truth.loss(truth.rho);
}

UCurve fit_sweep(const Truth& truth, const Design& design, int sweep, std::int64_t draws) {
  const Random random(7, stream_of(truth.name) + static_cast<std::uint64_t>(sweep));
  const double noise = design.noise * depth_of(truth, design);
  std::vector<Point> points;
  for (const double rho : design.grid)
    for (std::int64_t seed = 0; seed < design.seeds; ++seed)
      points.push_back({rho, truth.loss(rho) + noise * normal(random, points.size()), seed, {}});
  return fit_u_curve(points, {.draws = draws, .seed = static_cast<std::uint64_t>(sweep)});
}

Tally simulate(const Truth& truth, const Design& design, int sweeps, std::int64_t draws) {
  const double lowest = truth.loss(truth.rho);
  const double depth = depth_of(truth, design);
  Tally tally{.sweeps = sweeps};
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    const Optimum o = fit_sweep(truth, design, sweep, draws).physical_optimum;
    tally.error += (o.rho - truth.rho) / sweeps;
    tally.depth += (truth.loss(o.rho) - lowest) / depth / sweeps;
    tally.covered += o.rho_interval->low <= truth.rho && truth.rho <= o.rho_interval->high;
    tally.loss_covered += o.loss_interval->low <= lowest && lowest <= o.loss_interval->high;
  }
  return tally;
}

void check(int sweeps, std::int64_t draws, const std::vector<Design>& designs) {
  for (const Design& design : designs) {
    int covered = 0, loss_covered = 0, total = 0;
    for (const Truth& truth : truths()) {
      const Tally tally = simulate(truth, design, sweeps, draws);
      INFO(truth.name << ": rho* " << truth.rho << ", " << design.grid.size() << " values, "
                      << design.seeds << " seeds, noise " << design.noise << ": bias "
                      << tally.error << ", covered " << tally.covered << " and loss "
                      << tally.loss_covered << " of " << sweeps << ", regret " << tally.depth);
      CHECK(std::abs(tally.error) < 0.035);
      CHECK(tally.depth <
            0.06);  // loss given away by using the fitted optimum, as a share of the valley's depth
      CHECK(tally.covered >= 0.70 * sweeps);
      covered += tally.covered;
      loss_covered += tally.loss_covered;
      total += sweeps;
    }
    INFO("coverage " << covered << " and of the loss " << loss_covered << " of " << total);
    CHECK(covered >= 0.85 * total);
    CHECK(loss_covered >= 0.85 * total);
  }
}

const std::vector<double> kDense = {0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0};
const std::vector<double> kSparse = {0.4, 0.6, 0.75, 0.9, 1.0};

}  // namespace

TEST_CASE("the 95 % interval covers the optimum of simulated sweeps", "[unit][sweep]") {
  check(20, 120, {{kDense, 1, 0.06}, {kSparse, 2, 0.12}});
}

TEST_CASE("the 95 % interval covers the optimum of many simulated sweeps",
          "[.][sweep-simulation]") {
  check(300, 500,
        {{kDense, 1, 0.03},
         {kDense, 1, 0.15},
         {kDense, 3, 0.15},
         {kSparse, 2, 0.05},
         {kSparse, 2, 0.2},
         {kSparse, 4, 0.2}});
}

TEST_CASE("a draw on which the optimiser's inner solver fails is fitted all the same",
          "[unit][sweep]") {
  // One of the 500 draws of this sweep makes SLSQP throw "bug: more than iter SQP iterations".
  const UCurve fit = fit_sweep(truths().front(), {kSparse, 2, 0.05}, 80, 500);
  REQUIRE(fit.physical_optimum.rho_interval);
  CHECK(fit.physical_optimum.rho_interval->low > 0.7);
  CHECK(fit.physical_optimum.rho_interval->high < 0.9);
}

TEST_CASE("intervals narrow with more seeds", "[unit][sweep]") {
  const Truth truth = truths().front();
  double width[2] = {0.0, 0.0};
  for (int many = 0; many < 2; ++many) {
    for (int sweep = 0; sweep < 10; ++sweep) {
      const Random random(11, static_cast<std::uint64_t>(sweep));
      std::vector<Point> points;
      for (const double rho : kDense)
        for (std::int64_t seed = 0; seed < (many != 0 ? 8 : 2); ++seed)
          points.push_back(
              {rho, truth.loss(rho) + 0.002 * normal(random, points.size()), seed, {}});
      const Optimum o = fit_u_curve(points, {.draws = 100}).physical_optimum;
      width[many] += o.rho_interval->high - o.rho_interval->low;
    }
  }
  CHECK(width[1] < 0.75 * width[0]);
}
