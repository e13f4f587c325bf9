#include "apps/overrides.h"

#include "tests/catch.h"
#include "tests/subprocess.h"

using fulcrum::apps::separate_overrides;
using fulcrum::testing::run;

TEST_CASE("every assignment after --set is one", "[unit][overrides]") {
  using Words = std::vector<std::string>;
  const Words separate = {"plan", "--set", "a=1", "--set", "b.c=2", "--set", "d=3", "--json"};
  CHECK(separate_overrides({"plan", "--set", "a=1", "b.c=2", "d=3", "--json"}) == separate);
  CHECK(separate_overrides(separate) == separate);
  CHECK(separate_overrides({"--set=a=1", "b=2"}) == Words{"--set=a=1", "--set", "b=2"});
  // Files and values of other options stay what they are.
  for (const Words& words : {Words{"train", "--set", "a=1", "run.yaml", "b=2"},
                             Words{"train", "lr=1/run.yaml", "--set", "a=1", "runs/lr=1.yaml"},
                             Words{"train", "--set", "run.yaml"}, Words{"plan", "--set"}}) {
    CHECK(separate_overrides(words) == words);
  }
}

TEST_CASE("--set means the same to every verb", "[cli][overrides]") {
  const std::string dense = FULCRUM_SOURCE_DIR "/configs/bench/dense.yaml";
  const std::string quickstart = FULCRUM_SOURCE_DIR "/configs/quickstart/sweep.yaml";
  for (const auto& [verb, end] :
       {std::pair{"plan ", dense}, {"train ", dense}, {"bench ", dense}, {"sweep ", quickstart}}) {
    for (const std::string set : {"--set train.log_every=1 train.stesp=3 ",
                                  "--set train.log_every=1 --set train.stesp=3 "}) {
      for (const std::string& words : {set + end, end + " " + set}) {
        const auto job = run(std::string(FULCRUM_PROGRAM " ") + verb + words);
        INFO(verb << words << job.output);
        CHECK(job.exit_code == 2);
        CHECK(job.output.find("--set: train.stesp: unknown key; did you mean steps") !=
              std::string::npos);
      }
    }
  }
  const auto axis = run(FULCRUM_PROGRAM " sweep --dry-run --set train.seed=3 " + quickstart);
  CHECK(axis.exit_code == 2);
  CHECK(axis.output.find("set: train.seed: is an axis of the sweep") != std::string::npos);
}

TEST_CASE("a misspelt verb is named", "[cli][overrides]") {
  const auto job = run(FULCRUM_PROGRAM " trian experiment.yaml");
  CHECK(job.exit_code == 2);
  CHECK(job.output == "fulcrum: trian: unknown verb; did you mean train\n");
}

TEST_CASE("bench refuses what it would not use", "[cli][bench]") {
  const std::string bench = FULCRUM_PROGRAM " bench ";
  const std::string dense = FULCRUM_SOURCE_DIR "/configs/bench/dense.yaml";
  for (const auto& [words, message] :
       {std::pair{std::string("--only norm"), "--only: norm: no group of operators; allowed: "},
        {std::string("--only linaer"),
         "--only: linaer: no group of operators; did you mean linear"},
        {std::string("--set train.steps=3"), "--set: needs a configuration"},
        {"--only linear -- " + dense, "--only: chooses among operators"}}) {
    const auto job = run(bench + words);
    INFO(words << job.output);
    CHECK(job.exit_code == 2);
    CHECK(job.output.find(message) != std::string::npos);
  }
}
