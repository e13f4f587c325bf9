#include "apps/bench/floor.h"

#include "tests/apps/small_experiment.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::apps;

TEST_CASE("a step's floor is the sum of its operators' floors", "[unit][step_work]") {
  ExperimentConfig config = testing::small_experiment();
  config.train.micro_batch = 2;
  StepTiming timing;
  timing.seconds = 4.0;
  timing.regions = {{"feed_forward", 2.0}, {"idle", 1.0}};
  const Ceilings ceilings{1e3, 1e4};
  const StepFloor floor = step_floor(config, {}, {DType::f32, Device{}}, timing, ceilings);
  // Two micro-batches of 12 tokens: six products, bound by their flops, and three passes over
  // memory (swiglu 3 + 5, add 3).
  const Floor& part = floor.regions.at("feed_forward");
  CHECK(part.products == Approx(2 * 3 * (2 * 12 * 32 * 8 + 2 * 12 * 8 * 16) / 1e3));
  CHECK(part.memory == Approx(2 * 4 * (8 * 12 * 16 + 3 * 12 * 8) / 1e4));
  double sum = 0.0;
  for (const auto& [region, of] : floor.regions) sum += of.seconds();
  CHECK(floor.total.seconds() == Approx(sum));

  const std::string report = floor_report(timing, floor, ceilings);
  CHECK(report.find("  region, ms           time      floor floor/time   products     memory") ==
        0);
  CHECK(report.find("\n  idle             1000.000\n") != std::string::npos);
  CHECK(report.find("\n  step             4000.000 ") != std::string::npos);
}
