// Sweeps whose points `fulcrum train` runs.

#include <nlohmann/json.hpp>

#include "apps/sweep/point_state.h"
#include "framework/core/file.h"
#include "tests/apps/train/experiment.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::apps;
using fulcrum::testing::run;

TEST_CASE("the result of a trained point carries the point's hash", "[cli][sweep]") {
  // Vocabulary and budget are filled in by training, after the point was named.
  const testing::Experiment experiment;
  const auto folder = experiment.folder();
  testing::write_text(
      folder / "sweep.yaml",
      "base: experiment.yaml\n"
      "set: [train.steps=2, model.moe.experts=16, model.moe.top_k=2, "
      "model.moe.expert_width=128, 'model.dse={layers: [1], heads: 2, width: 32}']\n"
      "axes: {model.budget.rho: [1.0, 0.8, 0.6, 0.5, 0.4]}\n"
      "fit: {x: model.budget.rho}\nranks: 1\njobs: 1\nthreads: 1\nretries: 0\n"
      "command: ['{fulcrum}', train, '{config}', --run-dir, '{run_dir}', '{resume}']\n");
  const std::string sweep = fmt::format(FULCRUM_PROGRAM " sweep {}/sweep.yaml --run-dir {}/out",
                                        folder.string(), folder.string());
  testing::require_ok(run(sweep));
  const Manifest manifest = read_manifest(folder / "out");
  for (const PlannedPoint& point : manifest.points) {
    const auto result = nlohmann::json::parse(read_text(manifest.run_dir(point) / "result.json"));
    CHECK(result["config_hash"] == point.hash);
  }
  const auto plan = run(fmt::format(FULCRUM_PROGRAM " plan {}/config.yaml --json",
                                    manifest.folder(manifest.points[2]).string()));
  CHECK(nlohmann::json::parse(plan.output)["config_hash"] == manifest.points[2].hash);

  // A run folder that was put in another's place.
  std::filesystem::remove_all(manifest.run_dir(manifest.points[1]));
  std::filesystem::copy(
      manifest.run_dir(manifest.points[0]), manifest.run_dir(manifest.points[1]),
      std::filesystem::copy_options::recursive | std::filesystem::copy_options::copy_symlinks);
  const std::string why = "result.json: is the result of another configuration: config_hash " +
                          manifest.points[0].hash + "; the point rho=0.8 has";
  const auto resumed = run(sweep + " --resume");
  CHECK(resumed.exit_code == 1);
  CHECK(resumed.output.find("rho=0.8 is not done: ") != std::string::npos);
  CHECK(resumed.output.find("1 of 5 points are not done") != std::string::npos);
  CHECK(testing::count(resumed.output, why) >= 2);
  const auto fit =
      run(fmt::format(FULCRUM_PROGRAM " fit {}/out --json --draws 0", folder.string()));
  const auto missing = nlohmann::json::parse(fit.output)["missing"];
  REQUIRE(missing.size() == 1);
  CHECK(missing[0].dump().find(why) != std::string::npos);
}
