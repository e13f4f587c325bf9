#include "framework/telemetry/step_timer.h"

#include <thread>

#include "tests/catch.h"

using namespace fulcrum::telemetry;

namespace {
void pass(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}
}  // namespace

TEST_CASE("phases accumulate, and inner phases do not count twice", "[unit][telemetry]") {
  StepTimer timer;
  const auto begin = StepTimer::Clock::now();
  for (int i = 0; i < 2; ++i) {
    auto forward = timer.time(Phase::forward);
    pass(2);
    {
      auto exchange = timer.time(Phase::exchange);
      pass(6);
    }
    pass(2);
  }
  const double all = std::chrono::duration<double>(StepTimer::Clock::now() - begin).count();
  const auto seconds = timer.take();
  const double forward = seconds[static_cast<std::size_t>(Phase::forward)];
  const double exchange = seconds[static_cast<std::size_t>(Phase::exchange)];
  CHECK(forward >= 0.008);
  CHECK(exchange >= 0.012);
  CHECK(forward + exchange <= all);
  CHECK(timer.seconds(Phase::forward) == 0.0);

  const auto metrics = phase_metrics(seconds, 2);
  REQUIRE(metrics.size() == 2);
  CHECK(metrics[0].name == "time/forward");
  CHECK(metrics[0].value == forward / 2);
  CHECK(metrics[1].name == "time/exchange");
}

TEST_CASE("an open phase counts up to now", "[unit][telemetry]") {
  StepTimer timer;
  auto scope = timer.time(Phase::data);
  pass(3);
  CHECK(timer.seconds(Phase::data) >= 0.003);
  CHECK(timer.seconds(Phase::backward) == 0.0);
}
