#include "apps/sweep/spec.h"

#include "apps/sweep/driver.h"
#include "framework/core/error.h"
#include "tests/apps/sweep/fake_sweep.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::apps;
using fulcrum::testing::FakeSweep;
using fulcrum::testing::message_of;

namespace {

std::string error_of(const std::string& text) {
  const testing::TemporaryFolder folder;
  const auto file = folder.write("s.yaml", text);
  const std::string message = message_of<UserError>([&] { load_sweep(file); });
  const std::size_t at = message.find("s.yaml:");
  return at == std::string::npos ? message : message.substr(at);
}

const std::string kAxes = "axes:\n  model.budget.rho: [1.0, 0.5]\n  train.seed: [0, 1]\n";

}  // namespace

TEST_CASE("a sweep specification is read strictly", "[unit][sweep]") {
  CHECK(error_of("base: a.yaml\n").find("axes: is missing") != std::string::npos);
  CHECK(error_of(kAxes).find("base") != std::string::npos);
  CHECK(error_of("base: a.yaml\nrank: 2\n" + kAxes).find("s.yaml:2:1: rank") == 0);
  CHECK(error_of("base: a.yaml\nrank: 2\n" + kAxes).find("ranks") != std::string::npos);
  CHECK(error_of("base: a.yaml\nranks: 0\n" + kAxes).find("s.yaml:2:8: ranks") == 0);
  CHECK(error_of("base: a.yaml\naxes: [1]\n").find("s.yaml:2:7: axes: expects a map") == 0);
  CHECK(error_of("base: a.yaml\naxes: {train.seed: 3}\n").find("axes.train.seed: expects a list") !=
        std::string::npos);
  CHECK(error_of("base: a.yaml\naxes: {train.seed: [1, 1.0]}\n").find("1.0 appears twice") !=
        std::string::npos);
  CHECK(error_of("base: a.yaml\nfit: {x: train.steps}\n" + kAxes).find("must be one of the axes") !=
        std::string::npos);
  CHECK(error_of("base: a.yaml\nfit: {kind: line}\n" + kAxes).find("u-curve") != std::string::npos);
  CHECK(error_of("base: a.yaml\naxes: {model.budget.rho: [1.5]}\n").find("in (0, 1]; found 1.5") !=
        std::string::npos);
  CHECK(error_of("base: a.yaml\naxes: {model.budget.rho: [half]}\n")
            .find("must be numbers; found half") != std::string::npos);
  CHECK(error_of("base: a.yaml\nexclude: [{train.steps: 1}]\n" + kAxes)
            .find("train.steps is no axis") != std::string::npos);
  CHECK(error_of("base: a.yaml\nexclude: [{train.seed: 7}]\n" + kAxes)
            .find("7 is no value of train.seed") != std::string::npos);
}

TEST_CASE("a plan is the product of the axes without what is excluded", "[unit][sweep]") {
  FakeSweep sweep;
  sweep.spec += "exclude: [{x: 0.40, seed: 1}]\n";
  const Manifest manifest = sweep.plan();
  REQUIRE(manifest.points.size() == 9);
  CHECK(manifest.points[0].name == "x=1.0 seed=0");
  CHECK(manifest.points[0].x == 1.0);
  CHECK(manifest.points[1].seed == 1);
  CHECK(manifest.points[1].curve.empty());
  CHECK(manifest.points[2].overrides == std::vector<std::string>{"x=0.8", "seed=0"});
  CHECK(manifest.points[8].name == "x=0.4 seed=0");
  for (const PlannedPoint& a : manifest.points)
    for (const PlannedPoint& b : manifest.points) CHECK((a.id == b.id) == (&a == &b));
  CHECK(sweep.plan().points[3].id == manifest.points[3].id);
}

TEST_CASE("another axis makes another curve", "[unit][sweep]") {
  FakeSweep sweep;
  sweep.folder.write("base.yaml", "x: 1.0\nseed: 0\na: {width: 1}\nb: {width: 1}\n");
  sweep.spec =
      "base: base.yaml\naxes: {x: [1.0, 0.5], a.width: [8, 16], b.width: [4]}\nfit: {x: x}\n";
  const Manifest manifest = sweep.plan();
  REQUIRE(manifest.points.size() == 4);
  CHECK(manifest.points[0].name == "x=1.0 a.width=8 b.width=4");
  CHECK(manifest.points[0].curve == "a.width=8");
  const Dataset dataset = read_sweep(manifest);
  REQUIRE(dataset.curves.size() == 2);
  CHECK(dataset.curves[1].label == "a.width=16");
  CHECK(dataset.curves[1].missing.size() == 2);
  CHECK(dataset.curves[1].missing[0].why == "pending");
}

TEST_CASE("points that cannot be told apart, or none, are refused", "[unit][sweep]") {
  FakeSweep sweep;
  SECTION("an axis without effect") {
    const auto same = [](const std::filesystem::path&, const std::vector<std::string>&) {
      return ResolvedConfig{"a: 1\n", "0123456789abcdef"};
    };
    const SweepSpec spec = load_sweep(sweep.folder.write("sweep.yaml", sweep.spec));
    CHECK(message_of<UserError>([&] {
            plan_sweep(spec, "out", same);
          }).find("an axis has no effect") != std::string::npos);
  }
  SECTION("everything excluded") {
    sweep.spec += "exclude: [{seed: 0}, {seed: 1}]\n";
    CHECK(message_of<UserError>([&] { sweep.plan(); }).find("leaves no point") !=
          std::string::npos);
  }
  SECTION("a point that does not resolve is named") {
    const SweepSpec spec = load_sweep(sweep.folder.write("sweep.yaml", sweep.spec));
    const auto broken = [](const std::filesystem::path&,
                           const std::vector<std::string>& o) -> ResolvedConfig {
      if (o[0] == "x=0.7") throw UserError("rule broken");
      return {"a: 1\n", o[0] + o[1] + "0123456789abc"};
    };
    CHECK(message_of<UserError>([&] {
            plan_sweep(spec, "out", broken);
          }).find("point x=0.7 seed=0: rule broken") != std::string::npos);
  }
}

TEST_CASE("cores are shared between points, ranks and threads", "[unit][sweep]") {
  const auto shared = [](std::int64_t ranks, std::int64_t threads, std::int64_t jobs,
                         std::int64_t cores) {
    Execution e;
    e.ranks = ranks, e.threads = threads, e.jobs = jobs;
    share_cores(e, cores);
    return std::pair(e.jobs, e.threads);
  };
  CHECK(shared(2, 0, 0, 2) == std::pair<std::int64_t, std::int64_t>(1, 1));
  CHECK(shared(2, 0, 0, 1) == std::pair<std::int64_t, std::int64_t>(1, 1));
  CHECK(shared(2, 4, 0, 64) == std::pair<std::int64_t, std::int64_t>(8, 4));
  CHECK(shared(2, 0, 4, 64) == std::pair<std::int64_t, std::int64_t>(4, 8));
  CHECK(shared(2, 3, 5, 2) == std::pair<std::int64_t, std::int64_t>(5, 3));
}
