#pragma once
// A sweep whose training program is a shell script: `train CONFIG --run-dir DIR [--resume]` that
// computes a loss from the keys x and seed of a flat configuration. A hook, shell text that runs
// before the result is written, makes it fail, sleep or trap signals; it sees $x, $seed, $run,
// $resume and $calls (how often this point ran).

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "apps/sweep/driver.h"
#include "apps/sweep/point_state.h"
#include "framework/config/load.h"
#include "framework/core/file.h"
#include "tests/temporary_folder.h"

namespace fulcrum::testing {

class FakeSweep {
 public:
  explicit FakeSweep(const std::string& hook = "") {
    program = folder.write("fake.sh", std::string(R"(#!/bin/sh
config=$2; run=$4; resume=$5
mkdir -p "$run"
echo "call $resume" >> "$run/calls"
calls=$(wc -l < "$run/calls")
point=$(dirname $config)
hash=$(grep -o '"hash": "'$(basename $point)'[0-9a-f]*' $point/../../manifest.json | cut -d'"' -f4)
x=$(sed -n 's/^x: //p' "$config"); seed=$(sed -n 's/^seed: //p' "$config")
)") + hook + R"(
if [ "${OMPI_COMM_WORLD_RANK:-0}" = 0 ]; then
  awk -v x="$x" -v seed="$seed" -v hash="$hash" 'BEGIN {
    printf "{\"config_hash\": \"%s\", \"validation_loss\": %.6f}\n", hash, 2 + (x - 0.7) * (x - 0.7) + 0.001 * seed }' > "$run/result.json"
fi
)");
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    folder.write("base.yaml", "x: 1.0\nseed: 0\n");
    spec =
        "base: base.yaml\naxes:\n  x: [1.0, 0.8, 0.7, 0.5, 0.4]\n  seed: [0, 1]\nfit: {x: x, seed: "
        "seed}\n"
        "ranks: 1\nthreads: 1\njobs: 2\nretries: 1\ngrace_seconds: 5\n"
        "command: ['{fulcrum}', train, '{config}', --run-dir, '{run_dir}', '{resume}']\n";
  }

  static apps::ResolvedConfig resolve(const std::filesystem::path& base,
                                      const std::vector<std::string>& overrides) {
    std::vector<std::string> kept;
    for (const std::string& text : overrides)
      if (!text.starts_with("threads=")) kept.push_back(text);
    const std::string yaml = config::emit_yaml(config::load(base, kept));
    return {yaml, config::hash_text(yaml)};
  }

  apps::Manifest plan() {
    return apps::plan_sweep(apps::load_sweep(folder.write("sweep.yaml", spec)),
                            folder.path() / "out", resolve);
  }

  apps::SweepSummary run(bool resume = false) {
    std::filesystem::create_directories(folder.path() / "out");
    const apps::Manifest manifest = plan();
    apps::settle_folder(manifest, resume);
    apps::SweepProgress progress(true);
    return apps::run_points(manifest, program.string(), progress);
  }

  // How often a point was started.
  static std::int64_t calls(const apps::Manifest& manifest, const apps::PlannedPoint& point) {
    const std::string text = fulcrum::read_text(manifest.run_dir(point) / "calls");
    return std::count(text.begin(), text.end(), '\n');
  }

  TemporaryFolder folder;
  std::filesystem::path program;
  std::string spec;
};

}  // namespace fulcrum::testing
