// A scheduler that takes a job away sends a signal first.

#include <signal.h>

#include "framework/checkpoint/store.h"
#include "tests/apps/train/experiment.h"
#include "tests/catch.h"

using namespace fulcrum::testing;

TEST_CASE("a signal stops a run at a step, with a checkpoint and advice", "[cli][train]") {
  const Experiment experiment;
  const std::string options = model_options("dse") + " --set train.steps=100000";
  const auto stop = [&](int ranks, auto&& send) {
    const std::string run = "run";
    Process job(experiment.command(ranks, run, options), experiment.folder() / "output.txt");
    experiment.wait_for_step(run, job);
    send(job);
    const Finished end = job.wait();
    INFO(end.output);
    CHECK(end.exit_code == 1);
    const auto saved = fulcrum::checkpoint::latest_step(experiment.checkpoints(run));
    REQUIRE(saved);
    CHECK(count(end.output, fmt::format("stopped by a signal at step {} of 100000 with a "
                                        "checkpoint; go on with --resume",
                                        *saved)) == 1);
    fulcrum::checkpoint::CheckpointReader(experiment.checkpoints(run)).verify();
    CHECK(experiment.steps(run).rbegin()->first == *saved);
    const Finished resumed = experiment.train(
        ranks, run,
        fmt::format("{} --set train.steps={} --resume", model_options("dse"), *saved + 2));
    INFO(resumed.output);
    CHECK(resumed.exit_code == 0);
    const auto steps = experiment.steps(run);
    CHECK(steps.begin()->first == 1);
    CHECK(steps.rbegin()->first == *saved + 2);
    CHECK(static_cast<std::int64_t>(steps.size()) == *saved + 2);
  };
  SECTION("SIGTERM to a run without mpirun") {
    stop(1, [](Process& job) { kill(job.id(), SIGTERM); });
  }
  SECTION("SIGTERM to one rank") {
    stop(2, [](Process& job) { kill(job.children().at(1), SIGTERM); });
  }
  SECTION("SIGUSR1 to mpirun, which passes it on") {
    stop(2, [](Process& job) { kill(job.id(), SIGUSR1); });
  }
}
