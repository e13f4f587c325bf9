#include "apps/sweep/driver.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "apps/sweep/fit/output.h"
#include "apps/sweep/lock.h"
#include "apps/sweep/process.h"
#include "framework/core/error.h"
#include "tests/apps/sweep/fake_sweep.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::apps;
using fulcrum::testing::FakeSweep;
using fulcrum::testing::message_of;

namespace {

// A specification whose points have one attempt each.
std::string tried_once(const std::string& x, const std::string& more = "") {
  return "base: base.yaml\naxes: {x: [" + x + "]}\nfit: {x: x}\nretries: 0\njobs: 2\nthreads: 1\n" +
         more + "command: ['{fulcrum}', train, '{config}', --run-dir, '{run_dir}']\n";
}

}  // namespace

TEST_CASE("a sweep runs every point and its folder can be fitted", "[unit][sweep]") {
  FakeSweep sweep;
  const SweepSummary summary = sweep.run();
  CHECK(summary.total == 10);
  CHECK(summary.done == 10);
  CHECK(summary.unfinished.empty());
  const Manifest manifest = read_manifest(sweep.folder.path() / "out");
  REQUIRE(manifest.points.size() == 10);
  CHECK(manifest.points[3].config == sweep.plan().points[3].config);
  const FitReport report = fit_dataset(read_sweep(manifest), {.draws = 50});
  REQUIRE(report.curves.size() == 1);
  CHECK(report.curves[0].data.points.size() == 10);
  CHECK(report.curves[0].u_curve->parabola_optimum.rho == Approx(0.7).margin(1e-4));

  SECTION("a folder with a sweep is left alone without --resume") {
    CHECK(message_of<UserError>([&] { sweep.run(); }).find("--resume continues it") !=
          std::string::npos);
  }
  SECTION("resuming runs nothing again") {
    CHECK(sweep.run(true).done == 10);
    for (const PlannedPoint& point : manifest.points) CHECK(FakeSweep::calls(manifest, point) == 1);
  }
  SECTION("a changed sweep is not resumed, and the message says what changed") {
    sweep.folder.write("base.yaml", "x: 1.0\nseed: 0\nwidth: 64\n");
    std::string message = message_of<UserError>([&] { sweep.run(true); });
    CHECK(message.find("x=0.8 seed=1: width was nothing, is 64") != std::string::npos);
    sweep.folder.write("base.yaml", "x: 1.0\nseed: 0\n");
    sweep.spec.replace(sweep.spec.find("0.7"), 3, "0.75");
    message = message_of<UserError>([&] { sweep.run(true); });
    CHECK(message.find("new point x=0.75 seed=0") != std::string::npos);
    CHECK(message.find("x=0.7 seed=0 is planned no more") != std::string::npos);
  }
  SECTION("how points run may change") {
    sweep.spec += "timeout_minutes: 5\n";
    sweep.spec.replace(sweep.spec.find("jobs: 2"), 7, "jobs: 3");
    CHECK(sweep.run(true).done == 10);
  }
  SECTION("a point whose result is lost runs again") {
    std::filesystem::remove(manifest.run_dir(manifest.points[3]) / "result.json");
    CHECK(read_sweep(manifest).curves[0].missing[0].why.find("result.json: was not written") !=
          std::string::npos);
    CHECK(sweep.run(true).done == 10);
    CHECK(FakeSweep::calls(manifest, manifest.points[3]) == 2);
    CHECK(FakeSweep::calls(manifest, manifest.points[2]) == 1);
  }
  SECTION("another configuration's result does not count and is left alone") {
    const std::filesystem::path run = manifest.run_dir(manifest.points[3]);
    std::filesystem::remove_all(run);
    std::filesystem::copy(manifest.run_dir(manifest.points[0]), run);
    const std::string why = fmt::format(
        "{}/result.json: is the result of another configuration: config_hash {}; the point x=0.8 "
        "seed=1 has {}",
        run.string(), manifest.points[0].hash, manifest.points[3].hash);
    const Dataset dataset = read_sweep(manifest);
    CHECK(dataset.curves[0].points.size() == 9);
    REQUIRE(dataset.curves[0].missing.size() == 1);
    CHECK(dataset.curves[0].missing[0].why == why);

    const SweepSummary again = sweep.run(true);
    CHECK(again.done == 9);
    REQUIRE(again.unfinished.size() == 1);
    CHECK(again.unfinished[0] == "x=0.8 seed=1: failed after 1 attempt (" + why + "; move " +
                                     run.string() + " away and --resume to train it)");
    CHECK(FakeSweep::calls(manifest, manifest.points[3]) == 1);

    std::filesystem::remove_all(run);
    CHECK(sweep.run(true).done == 10);
  }
}

TEST_CASE("a failed point is tried again within the limit, and the others go on", "[unit][sweep]") {
  FakeSweep sweep(
      "if [ $x = 0.7 ] && [ $calls -lt 2 ]; then echo 'fulcrum: no luck'; exit 3; fi\n"
      "if [ $x = 0.4 ] && [ $calls -lt 4 ]; then echo 'fulcrum: broken for good'; exit 1; fi\n");
  SweepSummary summary = sweep.run();
  CHECK(summary.done == 8);
  REQUIRE(summary.unfinished.size() == 2);
  CHECK(summary.unfinished[0] ==
        "x=0.4 seed=0: failed after 2 attempts (exit code 1: fulcrum: broken for good)");
  const Manifest manifest = sweep.plan();
  CHECK(read_state(manifest.folder(manifest.points[4])).attempts == 2);  // x = 0.7
  CHECK(FakeSweep::calls(manifest, manifest.points[8]) == 2);
  const Dataset dataset = read_sweep(manifest);
  REQUIRE(dataset.curves[0].missing.size() == 2);
  CHECK(dataset.curves[0].missing[0].why == "failed");

  SECTION("the limit holds over several calls") {
    CHECK(sweep.run(true).done == 8);
    CHECK(FakeSweep::calls(manifest, manifest.points[8]) == 2);
  }
  SECTION("a higher limit gives further attempts") {
    sweep.spec.replace(sweep.spec.find("retries: 1"), 10, "retries: 3");
    CHECK(sweep.run(true).done == 10);
    CHECK(FakeSweep::calls(manifest, manifest.points[8]) == 4);
    CHECK(FakeSweep::calls(manifest, manifest.points[0]) == 1);
    CHECK(fulcrum::read_text(manifest.run_dir(manifest.points[8]) / "calls") ==
          "call \ncall --resume\ncall --resume\ncall --resume\n");
  }
}

TEST_CASE("a result that is missing, torn or not finite is a failure", "[unit][sweep]") {
  const auto message = [](const std::string& hook) {
    FakeSweep sweep(hook);
    sweep.spec = tried_once("1.0");
    const SweepSummary summary = sweep.run();
    return summary.unfinished.empty() ? std::string() : summary.unfinished[0];
  };
  CHECK(message("exit 0").find("result.json: was not written") != std::string::npos);
  CHECK(message("echo '{\"validation' > $run/result.json; exit 0").find("is not a result") !=
        std::string::npos);
  CHECK(message("echo \"{\\\"config_hash\\\": \\\"$hash\\\", \\\"validation_loss\\\": null}\" > "
                "$run/result.json; exit 0")
            .find("not a finite number") != std::string::npos);
  CHECK(message("echo '{\"validation_loss\": 2.0}' > $run/result.json; exit 0")
            .find("'config_hash' not found") != std::string::npos);
  CHECK(message("hash=0123").find("`command` may override no key but threads and run_dir") !=
        std::string::npos);
  CHECK(message("kill -9 $$").find("signal 9") != std::string::npos);
}

TEST_CASE("a point that takes too long is stopped with all its processes", "[unit][sweep]") {
  FakeSweep sweep(
      "if [ $x = 0.8 ]; then trap '' TERM; sleep 60 & echo $! > $run/child; wait; sleep 60; fi\n");
  sweep.spec = tried_once("1.0, 0.8", "timeout_minutes: 0.005\ngrace_seconds: 0.2\n");
  const SweepSummary summary = sweep.run();
  CHECK(summary.done == 1);
  REQUIRE(summary.unfinished.size() == 1);
  CHECK(summary.unfinished[0] == "x=0.8: timed out after 1 attempt (longer than 0.005 minutes)");
  const Manifest manifest = sweep.plan();
  const int child = std::stoi(fulcrum::read_text(manifest.run_dir(manifest.points[1]) / "child"));
  for (int i = 0; i < 100 && process_runs(child, "sleep"); ++i) usleep(10000);
  CHECK_FALSE(process_runs(child, "sleep"));
}

TEST_CASE("a launcher that does not end after it lost a rank is ended", "[unit][sweep]") {
  FakeSweep sweep(
      "if [ $x = 0.8 ]; then echo 'mpirun noticed that process rank 1 with PID 0 on node n exited "
      "on signal 9 (Killed).'; echo ------; exec sleep 1000; fi\n");
  sweep.spec = tried_once("1.0, 0.8", "grace_seconds: 0\n");
  const SweepSummary summary = sweep.run();
  CHECK(summary.done == 1);
  REQUIRE(summary.unfinished.size() == 1);
  CHECK(summary.unfinished[0] ==
        "x=0.8: failed after 1 attempt (the launcher did not end: mpirun noticed that process rank "
        "1 with PID 0 on node n exited on signal 9 (Killed).)");
}

TEST_CASE("a signal stops the running points cleanly and the next call goes on with them",
          "[unit][sweep]") {
  FakeSweep sweep(
      "if [ $calls = 1 ]; then trap 'kill $!; echo saved > $run/checkpoint; exit 0' TERM; touch "
      "$run/up; "
      "sleep 30 & wait; fi\n"
      "[ -f $run/checkpoint ] && [ \"$resume\" != --resume ] && exit 9\n");
  const Manifest manifest = sweep.plan();
  std::thread stopper([&] {
    const auto up = [&](std::size_t i) {
      return std::filesystem::exists(manifest.run_dir(manifest.points[i]) / "up");
    };
    for (int i = 0; i < 2000 && !(up(0) && up(1)); ++i) usleep(5000);
    ::kill(getpid(), SIGTERM);
  });
  const SweepSummary summary = sweep.run();
  stopper.join();
  CHECK(summary.interrupted);
  CHECK(summary.done == 0);
  CHECK(summary.unfinished[0] == "x=1.0 seed=0: pending (interrupted)");
  CHECK(std::filesystem::exists(manifest.run_dir(manifest.points[0]) / "checkpoint"));
  CHECK_FALSE(std::filesystem::exists(manifest.run_dir(manifest.points[2])));

  // The other points would also wait at their first call, so only the interrupted ones are run
  // here.
  SweepProgress progress(true);
  for (const std::int64_t index : {0, 1}) {
    const SweepSummary one = run_point(manifest, index, sweep.program.string(), progress);
    CHECK(one.done == 1);
    CHECK(read_state(manifest.folder(manifest.points[index])).attempts == 1);
  }
}

TEST_CASE("points run under mpirun, free of the launcher that surrounds the driver",
          "[unit][sweep]") {
  FakeSweep sweep("echo \"${OMPI_COMM_WORLD_SIZE} ${PMIX_TEST_LEAK}\" >> $run/ranks\n");
  sweep.spec = "base: base.yaml\naxes: {x: [1.0]}\nfit: {x: x}\nranks: 2\nthreads: 1\njobs: 1\n";
  setenv("PMIX_RANK", "0", 1);
  setenv("PMIX_TEST_LEAK", "leaked", 1);
  const SweepSummary summary = sweep.run();
  unsetenv("PMIX_RANK");
  unsetenv("PMIX_TEST_LEAK");
  INFO(fulcrum::read_text(sweep.plan().folder(sweep.plan().points[0]) / "log.txt"));
  CHECK(summary.done == 1);
  CHECK(fulcrum::read_text(sweep.plan().run_dir(sweep.plan().points[0]) / "ranks") == "2 \n2 \n");
}

TEST_CASE("one driver at a time owns a folder; a lock without an owner is stale", "[unit][sweep]") {
  const testing::TemporaryFolder folder;
  const auto file = folder.write("lock", "process 1 on another since yesterday");
  {
    const FolderLock lock(file, "this sweep");
    const std::string message =
        message_of<UserError>([&] { FolderLock second(file, "this sweep"); });
    CHECK(message.find(fmt::format("is being driven by process {} on ", getpid())) !=
          std::string::npos);
  }
  CHECK_NOTHROW(FolderLock(file, "this sweep"));
}

TEST_CASE("a program that does not exist is named", "[unit][sweep]") {
  FakeSweep sweep;
  sweep.spec.replace(sweep.spec.find("'{fulcrum}'"), 11, "no-such-launcher");
  CHECK(message_of<UserError>([&] {
          sweep.run();
        }).find("'no-such-launcher' cannot be started: No such file") != std::string::npos);
}

TEST_CASE("a point left running by a dead driver is taken up", "[unit][sweep]") {
  FakeSweep sweep;
  const Manifest manifest = sweep.plan();
  settle_folder(manifest, false);
  PointState state;
  state.status = PointStatus::running;
  state.pid = getpid();  // lives, but does not run this point
  state.host = host_name();
  write_state(manifest.folder(manifest.points[0]), state);
  CHECK(sweep.run(true).done == 10);
}

TEST_CASE("durations and the status line are short", "[unit][sweep]") {
  CHECK(duration_text(4.25) == "4.2 s");
  CHECK(duration_text(200.0) == "3 min 20 s");
  CHECK(duration_text(7500.0) == "2 h 05 min");
  CHECK(status_line({.total = 10, .done = 3, .running = 2, .failed = 1, .seconds_left = 65.0}) ==
        "3/10 points done, 2 running, 1 failed, 1 min 05 s left");
}
