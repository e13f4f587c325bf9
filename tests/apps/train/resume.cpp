// A run that stops and goes on computes what one that never stopped computes: bit for bit on the
// same number of ranks, up to rounding on another.

#include <nlohmann/json.hpp>

#include "framework/core/file.h"
#include "tests/apps/train/experiment.h"
#include "tests/catch.h"

using namespace fulcrum::testing;

namespace {

constexpr const char* kStepDecay =
    " --set train.schedule.kind=cosine --set train.schedule.warmup_steps=3 "
    "--set train.validation.every=5";

// Copies a run up to its checkpoint of one step, as if it had been killed just after.
void cut_run(const Experiment& experiment, const std::string& from, const std::string& to,
             const std::string& step) {
  std::filesystem::create_directories(experiment.checkpoints(to));
  std::filesystem::copy(experiment.run_dir(from) / "metrics.jsonl",
                        experiment.run_dir(to) / "metrics.jsonl");
  std::filesystem::copy(experiment.checkpoints(from) / step, experiment.checkpoints(to) / step,
                        std::filesystem::copy_options::recursive);
  std::filesystem::create_symlink(step, experiment.checkpoints(to) / "latest");
}

void check_resume(int ranks, const std::string& options) {
  const Experiment experiment;
  require_ok(experiment.train(ranks, "straight", options));
  require_ok(experiment.train(ranks, "saved", options + " --set checkpoint.every=3"));
  // Saving changes nothing.
  CHECK(experiment.steps("saved") == experiment.steps("straight"));
  cut_run(experiment, "saved", "cut", "step-3");
  const Finished resumed = experiment.train(ranks, "cut", options + " --resume");
  require_ok(resumed);
  CHECK(contains(resumed.output, "resumed at step 3"));
  CHECK(experiment.steps("cut") == experiment.steps("straight"));
  CHECK(experiment.validation("cut") == experiment.validation("straight"));
  require_same_tensors(experiment.checkpoints("cut"), experiment.checkpoints("straight"));
}

const std::string kMuon = " --set train.optimizer.kind=muon";
const std::string kSmallMoments = " --set train.optimizer.moments=bf16";

}  // namespace

TEST_CASE("a resumed run is the run that never stopped, bit for bit", "[cli][train]") {
  SECTION("dense, AdamW") { check_resume(1, kStepDecay + model_options("dense")); }
  SECTION("experts and memory, optimizer divided, 2 ranks") {
    check_resume(2, kStepDecay + model_options("dse") + " --set parallel.zero=1");
  }
  SECTION("experts and memory, Muon, 2 ranks") {
    check_resume(2, kStepDecay + kMuon + model_options("dse") + " --set train.micro_batch=2");
  }
  SECTION("experts, moments in bf16, optimizer divided, 2 ranks") {
    check_resume(2,
                 kStepDecay + kSmallMoments + model_options("moe-bias") + " --set parallel.zero=1");
  }
}

TEST_CASE("a run resumed on a GPU is the run that never stopped", "[gpu][train][slow]") {
  const std::string gpu = std::string(kStepDecay) + " --set device=cuda";
  SECTION("dense, AdamW") { check_resume(1, gpu + model_options("dense")); }
  SECTION("experts, moments in bf16") {
    check_resume(1, gpu + kSmallMoments + model_options("moe-bias"));
  }
  SECTION("experts and memory, Muon") { check_resume(1, gpu + kMuon + model_options("dse")); }
  SECTION("experts and memory, optimizer divided, 2 ranks") {
    check_resume(2, gpu + model_options("dse"));
  }
}

TEST_CASE("a run goes on with another number of ranks", "[cli][train]") {
  const Experiment experiment;
  const std::string options = model_options("dse") + " --set train.optimizer.kind=muon";
  const auto check = [&](int before, int after, const std::string& more = "") {
    const std::string run = fmt::format("{}-to-{}{}", before, after, more.empty() ? "" : "-more");
    require_ok(experiment.train(before, run, options + more + " --set train.steps=4"));
    require_ok(experiment.train(after, run, options + more + " --resume"));
    const auto expected = experiment.steps("one");
    const auto found = experiment.steps(run);
    REQUIRE(found.size() == expected.size());
    for (const auto& [step, logged] : expected) {
      INFO(run << ", step " << step);
      CHECK(found.at(step).loss == Approx(logged.loss).epsilon(2e-5));
    }
    CHECK(experiment.validation(run).at(8) ==
          Approx(experiment.validation("one").at(8)).epsilon(2e-5));
  };
  require_ok(experiment.train(1, "one", options));
  check(2, 1);
  check(1, 4);
  check(4, 2);
  check(4, 2, " --set parallel.zero=1");
}

TEST_CASE("a finished run is left as it is by --resume", "[cli][train]") {
  const Experiment experiment;
  require_ok(experiment.train(2, "run"));
  const auto result = [&] {
    return nlohmann::json::parse(fulcrum::read_text(experiment.run_dir("run") / "result.json"));
  };
  const auto before = result();
  require_ok(experiment.train(2, "run", "--resume"));
  CHECK(result() == before);
  CHECK(experiment.steps("run").size() == 8);
}
