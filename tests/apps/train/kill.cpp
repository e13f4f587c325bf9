// Ranks are killed at random moments, also inside a save. Every job must end by itself, `latest`
// must be whole, and the run must go on to exactly the losses of one that was never disturbed.
// Kills begin once MPI has started the ranks: Open MPI's launcher waits for ever for those that die
// before (apps/sweep/attempt.h ends it).
// FULCRUM_KILLS sets the number of kills (20 by default).

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "framework/checkpoint/store.h"
#include "framework/core/file.h"
#include "framework/core/philox.h"
#include "tests/apps/train/experiment.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::testing;
using Clock = std::chrono::steady_clock;

namespace {

constexpr int kSteps = 60;
constexpr int kRanks = 2;
constexpr double kDelaySeconds = 0.2;  // at most, after what was waited for

// Whom a kill takes.
enum class Victims { first_rank, last_rank, all_ranks, whole_job };

std::int64_t latest(const Experiment& experiment, const std::string& run) {
  return checkpoint::latest_step(experiment.checkpoints(run)).value_or(0);
}

bool inside_save(const std::filesystem::path& checkpoints) {
  if (!std::filesystem::exists(checkpoints)) return false;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoints)) {
    if (entry.path().extension() == ".tmp") return true;
  }
  return false;
}

void sleep_for(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// Waits until this job has written a text, or has ended.
void wait_for(Process& job, const std::filesystem::path& output, const std::string& text) {
  while (job.running()) {
    std::error_code ignored;
    if (contains(std::filesystem::exists(output, ignored) ? read_text(output) : "", text)) return;
    sleep_for(0.002);
  }
}

// Kills the victims; false when the job ended before.
bool strike(Process& job, Victims victims) {
  std::vector<pid_t> ranks = job.children();
  if (ranks.size() != kRanks) return false;
  std::sort(ranks.begin(), ranks.end());
  if (victims == Victims::first_rank) ranks = {ranks.front()};
  if (victims == Victims::last_rank) ranks = {ranks.back()};
  if (victims == Victims::whole_job) ranks.push_back(job.id());
  for (const pid_t rank : ranks) kill(rank, SIGKILL);
  return true;
}

void require_gone(const std::vector<pid_t>& processes) {
  const auto limit = Clock::now() + std::chrono::seconds(20);
  for (const pid_t process : processes) {
    while (kill(process, 0) == 0 && Clock::now() < limit) sleep_for(0.002);
    REQUIRE(kill(process, 0) != 0);
  }
}

}  // namespace

TEST_CASE("a run outlives kills at any moment", "[cli][train][kill]") {
  const char* option = std::getenv("FULCRUM_KILLS");
  const int wanted = option != nullptr ? std::atoi(option) : 20;
  const Experiment experiment;
  const std::string base = model_options("dse") + fmt::format(" --set train.steps={}", kSteps);
  const std::string often = base + " --set checkpoint.every=1 --set checkpoint.keep=2";
  REQUIRE(experiment.train(kRanks, "calm", base).exit_code == 0);

  const std::uint64_t seed = static_cast<std::uint64_t>(getpid());
  const Random random(seed, stream_of("kill"));
  std::uint64_t draws = 0;
  int kills = 0;
  int inside = 0;
  const auto finish = [&](const std::string& run) {
    const Finished last = experiment.train(kRanks, run, often + " --resume");
    INFO(run << "\n" << last.output);
    REQUIRE(last.exit_code == 0);
    CHECK(experiment.steps(run) == experiment.steps("calm"));
    CHECK(experiment.validation(run) == experiment.validation("calm"));
    require_same_tensors(experiment.checkpoints(run), experiment.checkpoints("calm"));
    CHECK(!inside_save(experiment.checkpoints(run)));
  };
  // A run that gets to its end before there were enough kills is followed by another.
  for (int round = 0; kills < wanted; ++round) {
    const std::string run = fmt::format("run-{}", round);
    std::int64_t step = 0;
    while (kills < wanted && step < kSteps) {
      const auto output = experiment.folder() / (run + ".txt");
      Process job(experiment.command(kRanks, run, often + " --resume"), output);
      // One kill in five may also meet the start, where the checkpoint is read.
      const bool early = random.below(draws++, 5) == 0;
      wait_for(job, output, early ? "parameters (" : "loss");
      sleep_for(kDelaySeconds * random.uniform(draws++));
      const auto victims = static_cast<Victims>(random.below(draws++, 4));
      const std::vector<pid_t> ranks = job.children();
      const bool struck = strike(job, victims);
      const Finished end = job.wait(30);
      INFO("seed " << seed << ", kill " << kills << " of kind " << static_cast<int>(victims)
                   << " after step " << step << "\n"
                   << end.output);
      REQUIRE(end.exit_code != 124);
      if (struck) {
        ++kills;
        inside += inside_save(experiment.checkpoints(run)) ? 1 : 0;
        require_gone(ranks);
      }
      const std::int64_t now = latest(experiment, run);
      REQUIRE(now >= step);
      if (now > 0) checkpoint::CheckpointReader(experiment.checkpoints(run)).verify();
      step = now;
    }
    finish(run);
  }
  CHECK(inside > 0);  // else no kill met a save
}
