// The number of ranks changes where numbers are computed, and nothing else: losses of 2 and 4 ranks
// are those of one, up to the rounding of sums in another order.

#include "tests/apps/train/experiment.h"
#include "tests/catch.h"

using namespace fulcrum::testing;

namespace {

// Adam divides by the size of the gradient, so rounding grows with every update; the bound is far
// below what a missing or doubled term would change.
constexpr double kTolerance = 2e-5;

void check_equal(const Experiment& experiment, const std::string& options,
                 const std::vector<int>& all_ranks = {1, 2, 4}, double tolerance = kTolerance) {
  for (const int ranks : all_ranks) {
    // One micro-batch a rank: statistics of the global batch see all of it on every mesh.
    const Finished job = experiment.train(ranks, std::to_string(ranks), options);
    INFO(job.output);
    REQUIRE(job.exit_code == 0);
  }
  const auto expected = experiment.steps("1");
  REQUIRE(expected.size() == 8);
  REQUIRE(expected.at(8).loss < expected.at(1).loss);
  for (const int ranks : all_ranks) {
    const std::string run = std::to_string(ranks);
    const auto found = experiment.steps(run);
    REQUIRE(found.size() == expected.size());
    for (const auto& [step, logged] : expected) {
      INFO(run << " ranks, step " << step);
      CHECK(found.at(step).loss == Approx(logged.loss).epsilon(tolerance));
      CHECK(found.at(step).total_loss == Approx(logged.total_loss).epsilon(tolerance));
      CHECK(found.at(step).gradient_norm == Approx(logged.gradient_norm).epsilon(50 * tolerance));
    }
    const auto validation = experiment.validation(run);
    CHECK(validation.size() == 2);
    for (const auto& [step, loss] : experiment.validation("1"))
      CHECK(validation.at(step) == Approx(loss).epsilon(tolerance));
  }
}

}  // namespace

TEST_CASE("losses do not depend on the number of ranks", "[cli][train]") {
  const Experiment experiment;
  const std::string validate = " --set train.validation.every=4";
  const std::string muon = " --set train.optimizer.kind=muon";
  SECTION("dense") { check_equal(experiment, validate); }
  SECTION("dense, Muon") { check_equal(experiment, validate + muon); }
  const std::string divided = " --set parallel.zero=1 --set parallel.bucket_mib=0.01";
  SECTION("dense, optimizer divided") { check_equal(experiment, validate + divided); }
  SECTION("experts, Muon, optimizer divided") {
    check_equal(experiment, validate + muon + model_options("moe-bias") + divided);
  }
  SECTION("experts with a balance loss over the global batch, Muon") {
    check_equal(experiment, validate + muon + model_options("moe-loss"));
  }
  SECTION("experts balanced by bias") {
    check_equal(experiment, validate + model_options("moe-bias"));
  }
  SECTION("sharded n-gram memory") { check_equal(experiment, validate + model_options("dse")); }
  SECTION("sharded n-gram memory, micro-batches, Muon") {
    // 2 micro-batches a rank on every mesh: the same sums over the step.
    for (const auto& [ranks, micro] : {std::pair{1, 4}, {2, 2}, {4, 1}}) {
      const Finished job = experiment.train(
          ranks, std::to_string(ranks),
          muon + model_options("dse") + " --set train.micro_batch=" + std::to_string(micro));
      INFO(job.output);
      REQUIRE(job.exit_code == 0);
    }
    const auto expected = experiment.steps("1");
    for (const std::string run : {"2", "4"}) {
      for (const auto& [step, logged] : expected)
        CHECK(experiment.steps(run).at(step).loss == Approx(logged.loss).epsilon(kTolerance));
    }
  }
}

TEST_CASE("losses on GPUs do not depend on the number of ranks", "[gpu][train][slow]") {
  const Experiment experiment;
  const std::string f32 =
      " --set device=cuda --set train.precision=f32 --set train.validation.every=4";
  SECTION("dense, optimizer divided") { check_equal(experiment, f32, {1, 2, 4}); }
  SECTION("dense, optimizer whole") {
    check_equal(experiment, f32 + " --set parallel.zero=0", {1, 2});
  }
  SECTION("experts with a balance loss over the global batch, Muon") {
    check_equal(experiment, f32 + " --set train.optimizer.kind=muon" + model_options("moe-loss"),
                {1, 2}, 2e-4);
  }
  SECTION("shared n-gram memory") {
    check_equal(experiment, f32 + model_options("dse"), {1, 2, 4});
  }
  SECTION("shared n-gram memory, bf16") {
    check_equal(experiment,
                " --set device=cuda --set train.validation.every=4" + model_options("dse"), {1, 2},
                1e-2);
  }
}
