#include "apps/train/step_guard.h"

#include <cmath>
#include <limits>

#include "framework/core/error.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::apps;

TEST_CASE("steps that are not finite are skipped, then end the run", "[unit][train]") {
  GuardConfig config;
  config.max_skips = 2;
  StepGuard guard(config);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(guard.reason_to_skip(0, 2.0, 1.0));
  CHECK(guard.reason_to_skip(1, nan, 1.0));
  CHECK(guard.reason_to_skip(2, 2.0, nan));
  CHECK_FALSE(guard.reason_to_skip(3, 2.0, 1.0));  // a good step resets the count
  CHECK(guard.reason_to_skip(4, 2.0, INFINITY));
  CHECK(guard.reason_to_skip(5, nan, nan));
  CHECK_THROWS_AS(guard.reason_to_skip(6, nan, nan), UserError);
}

TEST_CASE("a spike is called after enough steps, also after a restore", "[unit][train]") {
  GuardConfig config;
  config.spike_sigma = 6.0;
  StepGuard guard(config);
  CHECK_FALSE(guard.reason_to_skip(0, 2.0, 100.0));  // too early to call
  for (int i = 1; i < 200; ++i) {
    REQUIRE_FALSE(guard.reason_to_skip(i, 2.0, 1.0 + 0.01 * (i % 7)));
  }
  StepGuard restored(config);
  restored.restore(guard.state());
  for (StepGuard* g : {&guard, &restored}) {
    CHECK(g->reason_to_skip(200, 2.0, 1.5));
    CHECK_FALSE(g->reason_to_skip(201, 2.0, 1.03));
  }
}
