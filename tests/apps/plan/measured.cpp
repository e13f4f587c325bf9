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
  for (const char* kind : {"weights", "gradients", "optimizer"}) {
    INFO(kind);
    CHECK(estimated[kind].get<double>() == Approx(measured[kind].get<double>()).epsilon(0.1));
  }
  const double beside = estimated["activations"].get<double>() +
                        estimated["dispatch_buffers"].get<double>() +
                        estimated["checkpoint"].get<double>();
  CHECK(beside == Approx(measured["activations"].get<double>()).epsilon(0.1));
  CHECK(estimated["total"].get<double>() == Approx(measured["peak"].get<double>()).epsilon(0.1));
  CHECK(measured["reserved"] >= measured["peak"]);
}

}  // namespace

TEST_CASE("plan's memory agrees with what training takes", "[cli][plan]") {
  const testing::Experiment experiment;
  const std::string dense = kSize;
  // The first of several micro-batches has the peak: it comes while the copy is being written.
  const std::string saving = dense + " --set checkpoint.every=1 --set train.micro_batch=4";
  const std::string sparse = kSize + testing::model_options("dse") +
                             " --set model.dse.rows_per_head=[997] --set train.micro_batch=4";
  check_agreement(experiment, 1, "dense", dense);
  check_agreement(experiment, 2, "dense-2", dense);
  check_agreement(experiment, 2, "divided", dense + " --set parallel.zero=1");
  check_agreement(experiment, 1, "saving", saving);
  check_agreement(experiment, 1, "muon", dense + " --set train.optimizer.kind=muon");
  const std::string small = " --set train.optimizer.moments=bf16";
  check_agreement(experiment, 1, "small-moments", dense + small);
  check_agreement(experiment, 2, "small-moments-divided",
                  sparse + small + " --set parallel.zero=1");
  check_agreement(experiment, 1, "muon-small-moments",
                  dense + small + " --set train.optimizer.kind=muon");
  check_agreement(experiment, 1, "sparse", sparse);
  check_agreement(experiment, 2, "sparse-2", sparse);
  for (const std::string recompute : {"selective", "full"}) {
    const std::string deep = " --set model.layers=8 --set train.recompute=" + recompute;
    check_agreement(experiment, 1, "dense-" + recompute, dense + deep);
    check_agreement(experiment, 1, "sparse-" + recompute, sparse + deep);
  }
}

TEST_CASE("plan's memory agrees with what training on a GPU takes", "[gpu][plan][slow]") {
  const testing::Experiment experiment;
  // Large enough for the pages of large blocks (2 MiB) to matter little.
  const std::string gpu =
      " --set device=cuda --set model.width=512 --set model.ffn_width=1536"
      " --set model.attention.heads=8 --set model.attention.head_dim=64"
      " --set train.sequence_length=512 --set train.global_batch=32 --set train.steps=4";
  const std::string sparse = gpu + testing::model_options("dse") +
                             " --set model.moe.experts=16 --set model.moe.expert_width=128"
                             " --set model.dse.rows_per_head=[9973] --set train.micro_batch=16";
  for (const std::string recompute : {"none", "selective", "full"}) {
    const std::string deep = " --set model.layers=8 --set train.recompute=" + recompute;
    check_agreement(experiment, 1, "dense-" + recompute, gpu + deep);
    check_agreement(experiment, 1, "small-moments-" + recompute,
                    gpu + deep + " --set train.optimizer.moments=bf16");
    check_agreement(experiment, 1, "sparse-" + recompute, sparse + deep);
  }
}
