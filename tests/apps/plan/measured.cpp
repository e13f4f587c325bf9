// The estimate of `fulcrum plan` against what `fulcrum train` reports.

#include <nlohmann/json.hpp>

#include "framework/core/file.h"
#include "tests/apps/train/experiment.h"
#include "tests/catch.h"

using namespace fulcrum;
using nlohmann::json;

namespace {

const std::string kSize =
    " --set model.width=64 --set model.ffn_width=192 --set train.sequence_length=64"
    " --set train.global_batch=16 --set train.steps=3";

void check_agreement(const testing::Experiment& experiment, int ranks, const std::string& run,
                     const std::string& arguments) {
  INFO(ranks << " ranks," << arguments);
  const testing::Finished job = experiment.train(ranks, run, arguments);
  testing::require_ok(job);
  CHECK(job.output.find("memory of a rank: ") != std::string::npos);
  const json measured =
      json::parse(read_text(experiment.run_dir(run) / "result.json")).at("memory");
  const testing::Finished plan =
      testing::run(fmt::format(FULCRUM_PROGRAM " plan {} --ranks {} --json {}",
                               experiment.config().string(), ranks, arguments));
  REQUIRE(plan.exit_code == 0);
  const json estimated = json::parse(plan.output).at("memory_per_rank");
  INFO(measured.dump() << " " << estimated.dump());
  const std::int64_t state = estimated["weights"].get<std::int64_t>() +
                             estimated["gradients"].get<std::int64_t>() +
                             estimated["optimizer"].get<std::int64_t>();
  CHECK(static_cast<double>(state) == Approx(measured["state"].get<double>()).epsilon(0.1));
  CHECK(estimated["total"].get<double>() == Approx(measured["peak"].get<double>()).epsilon(0.1));
  CHECK(measured["reserved"] >= measured["peak"]);
}

}  // namespace

TEST_CASE("plan's memory agrees with what training takes", "[cli][plan]") {
  const testing::Experiment experiment;
  const std::string dense = kSize;
  const std::string saving = dense + " --set checkpoint.every=1";
  const std::string sparse = kSize + testing::model_options("dse") +
                             " --set model.dse.rows_per_head=[997] --set train.micro_batch=4";
  check_agreement(experiment, 1, "dense", dense);
  check_agreement(experiment, 2, "dense-2", dense);
  check_agreement(experiment, 2, "divided", dense + " --set parallel.zero=1");
  check_agreement(experiment, 1, "saving", saving);
  check_agreement(experiment, 1, "muon", dense + " --set train.optimizer.kind=muon");
  check_agreement(experiment, 1, "sparse", sparse);
  check_agreement(experiment, 2, "sparse-2", sparse);
  for (const std::string recompute : {"selective", "full"}) {
    const std::string deep = " --set model.layers=8 --set train.recompute=" + recompute;
    check_agreement(experiment, 1, "dense-" + recompute, dense + deep);
    check_agreement(experiment, 1, "sparse-" + recompute, sparse + deep);
  }
}
