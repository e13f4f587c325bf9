#include <nlohmann/json.hpp>

#include "tests/catch.h"
#include "tests/subprocess.h"

using fulcrum::testing::run;

namespace {

const std::string kPlan = FULCRUM_PROGRAM " plan ";
const std::string kPaper = FULCRUM_SOURCE_DIR "/configs/paper/";

}  // namespace

TEST_CASE("plan prints a table, JSON, tensors and the resolved configuration", "[cli][plan]") {
  const auto table = run(kPlan + kPaper + "dse-27b.yaml --ranks 8");
  CHECK(table.exit_code == 0);
  CHECK(table.output.find("parameters 26.7") == 0);
  CHECK(table.output.find("8 ranks") != std::string::npos);

  const auto json =
      run(kPlan + kPaper +
          "moe-27b.yaml --json --set train.steps=10 --set train.schedule.warmup_steps=2 "
          "--set model.vocabulary=1000");
  REQUIRE(json.exit_code == 0);
  const auto parsed = nlohmann::json::parse(json.output);
  CHECK(parsed["steps"] == 10);
  CHECK(parsed["parameters"]["embedding"] == 2 * 1000 * 2560);

  const auto tensors = run(kPlan + "--tensors " + kPaper + "deepseekmoe-2b.yaml");
  CHECK(tensors.exit_code == 0);
  CHECK(tensors.output.find("blocks.8.feed_forward.experts.down.weight") != std::string::npos);

  const auto yaml = run(kPlan + "--yaml " + kPaper + "dse-40b.yaml");
  CHECK(yaml.exit_code == 0);
  CHECK(yaml.output.find("rows_per_head: [7239680]") != std::string::npos);
}

TEST_CASE("plan ends with 2 and one line for what a user got wrong", "[cli][plan]") {
  const auto misspelt = run(kPlan + kPaper + "dse-27b.yaml --set model.widht=3");
  CHECK(misspelt.exit_code == 2);
  CHECK(misspelt.output == "fulcrum: --set: model.widht: unknown key; did you mean width\n");
  const auto missing = run(kPlan + "nowhere.yaml");
  CHECK(missing.exit_code == 2);
  CHECK(missing.output == "fulcrum: nowhere.yaml: cannot be read: No such file or directory\n");
  CHECK(run(kPlan).exit_code == 2);
  const auto help = run(kPlan + "--help");
  CHECK(help.exit_code == 0);
  CHECK(help.output.find("fulcrum plan configs/paper/dse-27b.yaml") != std::string::npos);
}
