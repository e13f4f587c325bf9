// The published totals, within the rounding in which they are printed.

#include <cmath>

#include "apps/train/config_parser.h"
#include "models/budget_solver.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::models;

namespace {

apps::ExperimentConfig paper(const std::string& name) {
  return apps::load_experiment(std::string(FULCRUM_SOURCE_DIR "/configs/paper/") + name + ".yaml");
}

double tenths_of_billions(std::int64_t n) { return std::round(static_cast<double>(n) / 1e8) / 10; }

}  // namespace

TEST_CASE("deepseekmoe-2b has the published parameters", "[unit][budget]") {
  const auto experiment = paper("deepseekmoe-2b");
  const auto count = count_parameters(experiment.model);
  CHECK(tenths_of_billions(count.total) == 2.0);
  CHECK(std::round(static_cast<double>(count.experts) / 1e7) == 189);
  CHECK(experiment.train.steps * experiment.train.global_batch * 2048 / 1'000'000'000 == 104);
}

TEST_CASE("deepseekmoe-16b has the published parameters", "[unit][budget]") {
  const auto count = count_parameters(paper("deepseekmoe-16b").model);
  CHECK(tenths_of_billions(count.total) == 16.4);
  CHECK(tenths_of_billions(count.p_act() + count.embedding) == 2.8);
}

TEST_CASE("moe-27b has the published parameters", "[unit][budget]") {
  const auto count = count_parameters(paper("moe-27b").model);
  CHECK(tenths_of_billions(count.total) == 26.7);
  CHECK(tenths_of_billions(count.active) == 3.8);
}

TEST_CASE("dse-27b has the published parameters", "[unit][budget]") {
  const auto model = paper("dse-27b").model;
  const auto count = count_parameters(model);
  CHECK(tenths_of_billions(count.total) == 26.7);
  CHECK(tenths_of_billions(count.active) == 3.8);
  CHECK(static_cast<double>(count.tables) / 1e9 ==
        Approx(5.79).margin(0.005));  // printed cut to 5.7
  CHECK(plan_budget(model).rho == Approx(0.743).margin(0.0005));
}

TEST_CASE("dse-40b has the published parameters", "[unit][budget]") {
  const auto count = count_parameters(paper("dse-40b").model);
  CHECK(tenths_of_billions(count.total) == 39.5);
  CHECK(tenths_of_billions(count.active) == 3.8);
  CHECK(tenths_of_billions(count.tables) == 18.5);
}

TEST_CASE("nsa-27b has the published parameters", "[unit][budget]") {
  const auto count = count_parameters(paper("nsa-27b").model);
  CHECK(std::round(static_cast<double>(count.total) / 1e9) == 27);
}

TEST_CASE("the solver finds dse-27b from moe-27b", "[unit][budget]") {
  ModelConfig model = paper("moe-27b").model;
  model.dse = paper("dse-27b").model.dse;
  model.dse->rows_per_head.clear();
  model.budget.rho = 0.743;
  const auto solution = plan_budget(model);
  CHECK(solution.experts == 55);
  CHECK(solution.model.dse->rows_per_head[0] == Approx(2262400).epsilon(0.003));
  CHECK(std::abs(solution.deviation) < 1e-6);
}

TEST_CASE("the tables of 16,000,000 rows a head have the published sizes", "[unit][budget]") {
  DseConfig dse;
  dse.layers = {1, 14};
  dse.orders = {2, 3, 4};
  dse.rows_per_head = {16'000'000};
  CHECK(table_rows(dse) == std::vector<std::int64_t>{384'006'168, 384'016'682});
}
