#include "framework/optim/schedule.h"

#include "framework/core/error.h"
#include "tests/catch.h"

using fulcrum::Schedule;
using fulcrum::ScheduleShape;

namespace {

Schedule schedule(ScheduleShape shape, std::int64_t warmup) {
  Schedule s;
  s.shape = shape;
  s.peak = 2.0;
  s.steps = 100;
  s.warmup_steps = warmup;
  return s;
}

}  // namespace

TEST_CASE("every schedule warms up in a line", "[unit][optim]") {
  for (const auto shape :
       {ScheduleShape::constant, ScheduleShape::step, ScheduleShape::cosine, ScheduleShape::wsd}) {
    const Schedule s = schedule(shape, 10);
    CHECK(s.learning_rate(0) == Approx(0.2));
    CHECK(s.learning_rate(4) == Approx(1.0));
    CHECK(s.learning_rate(9) == Approx(2.0));
    CHECK(s.learning_rate(10) == Approx(2.0));
    CHECK(schedule(shape, 0).learning_rate(0) == Approx(2.0));
  }
}

TEST_CASE("step decay falls at its milestones", "[unit][optim]") {
  Schedule s = schedule(ScheduleShape::step, 0);
  CHECK(s.learning_rate(79) == Approx(2.0));
  CHECK(s.learning_rate(80) == Approx(2.0 * 0.316));
  CHECK(s.learning_rate(89) == Approx(2.0 * 0.316));
  CHECK(s.learning_rate(90) == Approx(2.0 * 0.316 * 0.316));
  s.milestones = {};
  CHECK(s.learning_rate(99) == Approx(2.0));
}

TEST_CASE("cosine and wsd end at their final fraction", "[unit][optim]") {
  const Schedule cosine = schedule(ScheduleShape::cosine, 20);
  CHECK(cosine.learning_rate(60) == Approx(2.0 * 0.55));
  CHECK(cosine.learning_rate(40) == Approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + 0.70710678))));
  CHECK(cosine.learning_rate(100) == Approx(0.2));
  CHECK(cosine.learning_rate(500) == Approx(0.2));
  const Schedule wsd = schedule(ScheduleShape::wsd, 20);
  CHECK(wsd.learning_rate(80) == Approx(2.0));
  CHECK(wsd.learning_rate(90) == Approx(2.0 * 0.55));
  CHECK(wsd.learning_rate(100) == Approx(0.2));
  CHECK(wsd.learning_rate(500) == Approx(0.2));
}

TEST_CASE("the rate never rises after warm-up, nor leaves its bounds", "[unit][optim]") {
  for (const auto shape :
       {ScheduleShape::constant, ScheduleShape::step, ScheduleShape::cosine, ScheduleShape::wsd}) {
    const Schedule s = schedule(shape, 7);
    for (std::int64_t step = 7; step < 130; ++step) {
      CHECK(s.learning_rate(step + 1) <= s.learning_rate(step));
      CHECK(s.learning_rate(step) > 0.09 * s.peak);
    }
  }
}

TEST_CASE("warm-up as long as the run, or longer", "[unit][optim]") {
  for (const std::int64_t warmup : {100, 150}) {
    const Schedule s = schedule(ScheduleShape::cosine, warmup);
    CHECK(s.learning_rate(99) == Approx(2.0 * 100 / static_cast<double>(warmup)));
    CHECK(s.learning_rate(warmup) == Approx(2.0));
  }
  CHECK_THROWS_AS(schedule(ScheduleShape::cosine, 0).learning_rate(-1), fulcrum::InternalError);
}
