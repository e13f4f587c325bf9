#include "apps/train/config_parser.h"

#include <cmath>

#include "framework/core/error.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::apps;
using testing::message_of;

namespace {

const char* const kModel =
    "model:\n  layers: 2\n  width: 8\n  ffn_width: 16\n  attention: {heads: 2}\n";
const char* const kTrain = "train: {steps: 10, sequence_length: 16, global_batch: 8}\n";

}  // namespace

TEST_CASE("an experiment reads, resolves and reads back", "[unit][config]") {
  const testing::TemporaryFolder folder;
  folder.write("model.yaml", kModel);
  const auto file =
      folder.write("run.yaml", std::string("extends: model.yaml\nrun_dir: runs/a\n") + kTrain);
  const auto experiment =
      load_experiment(file, {"train.steps=20", "train.optimizer.kind=muon", "device=cpu"});
  CHECK(experiment.train.steps == 20);
  CHECK(experiment.train.optimizer.kind == OptimizerKind::muon);
  CHECK(experiment.device == DeviceChoice::cpu);
  CHECK(experiment.run_dir == "runs/a");
  CHECK(experiment.model.attention.head_dim == 4);

  const std::string text = to_yaml(experiment);
  const auto again = parse_experiment(config::parse_yaml(text, "resolved"));
  CHECK(to_yaml(again) == text);
  for (const char* key : {"rope_theta: 10000.0", "lr_multiplier: 5.0", "dse: null", "rho: null",
                          "hang_timeout_s: 600.0", "milestones: [0.8, 0.9]", "device: cpu"})
    CHECK(text.find(key) != std::string::npos);
}

TEST_CASE("the hash names the experiment, not its place", "[unit][config]") {
  const testing::TemporaryFolder folder;
  const auto file = folder.write("run.yaml", std::string(kModel) + kTrain);
  const auto hash = [&](const std::vector<std::string>& overrides) {
    return config_hash(load_experiment(file, overrides));
  };
  CHECK(hash({}).size() == 32);
  CHECK(hash({}) == hash({"run_dir=elsewhere"}));
  CHECK(hash({}) == hash({"train.seed=0", "model.attention.kv_heads=2"}));
  CHECK(hash({}) != hash({"train.seed=1"}));
  CHECK(hash({}) != hash({"train.optimizer.lr=0.0010000001"}));
}

TEST_CASE("wrong experiments name file, key and rule", "[unit][config]") {
  const testing::TemporaryFolder folder;
  const auto file = folder.write("run.yaml", std::string(kModel) + kTrain);
  const auto problem = [&](const std::string& assignment) {
    return message_of<UserError>([&] { load_experiment(file, {assignment}); });
  };
  CHECK(problem("train.stpes=3") == "--set: train.stpes: unknown key; did you mean steps");
  CHECK(problem("trian.steps=3") == "--set: trian: unknown key; did you mean train");
  CHECK(problem("train.steps=0") ==
        "--set: train.steps: out of range; found 0; allowed: at least 1");
  CHECK(problem("train.micro_batch=3") ==
        "--set: train.micro_batch: must divide global_batch 8; found 3");
  CHECK(problem("train.schedule.warmup_steps=11") ==
        "--set: train.schedule.warmup_steps: must be at most steps 10; found 11");
  CHECK(problem("train.schedule.milestones=[0.9, 0.8]") ==
        "--set: train.schedule.milestones: must be ascending; found [0.9, 0.8]");
  CHECK(problem("parallel.pipeline=3") ==
        "--set: parallel.pipeline: must be at most model.layers 2; found 3");
  CHECK(problem("parallel.expert=2") ==
        "--set: parallel.expert: needs experts: model.moe.experts is 0; found 2");
  CHECK(problem("train.optimizer.beta1=1") ==
        "--set: train.optimizer.beta1: out of range; found 1; allowed: [0, 1)");
  CHECK(problem("model.attention.heads=3") ==
        "--set: model.attention.heads: must divide width 8 when head_dim is not given; found 3");
  CHECK(problem("train.optimizer.moments=f16")
            .find("--set: train.optimizer.moments: unknown choice; found f16; allowed: f32, "
                  "bf16") == 0);
  CHECK(problem("device=gpu")
            .find("--set: device: unknown choice; found gpu; allowed: auto, cpu, cuda") == 0);
  const auto bare = folder.write("bare.yaml", kModel);
  CHECK(message_of<UserError>([&] { load_experiment(bare); }) ==
        bare.string() + ":1:1: train.steps: a required key is missing");
}

TEST_CASE("the router presets are experiments to extend", "[unit][config]") {
  const testing::TemporaryFolder folder;
  for (const char* name : {"gshard", "deepseekmoe", "deepseek-v2", "deepseek-v3"}) {
    const auto file = folder.write(
        "run.yaml", std::string("extends: " FULCRUM_SOURCE_DIR "/configs/moe/") + name + ".yaml\n" +
                        kModel + "  moe: {experts: 32, expert_width: 8}\n" + kTrain);
    const auto& moe = load_experiment(file).model.moe;
    INFO(name);
    CHECK(moe.routed() == (name == std::string("deepseekmoe") ? 128 : 32));
    CHECK((moe.balance.expert_loss > 0) != (moe.balance.bias_rate > 0));
  }
}
