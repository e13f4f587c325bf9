#pragma once
// A sweep as its YAML file says it.
//
//   base: experiment.yaml          # relative to this file
//   set: [train.steps=400]         # overrides of every point
//   axes:                          # every combination is a point
//     model.budget.rho: [1.0, 0.85, 0.7, 0.55, 0.4]
//     train.seed: [0, 1]
//   exclude:                       # combinations that are left out
//     - {model.budget.rho: 0.4, train.seed: 1}
//   fit: {x: model.budget.rho, kind: u-curve}
//   ranks: 2                       # processes of a point
//   threads: 0                     # of a process; 0: the cores shared out
//   jobs: 0                        # points that run at once; 0: as many as cores allow
//   retries: 1                     # further attempts of a failed point
//   timeout_minutes: 0             # of one attempt; 0: none
//   grace_seconds: 60              # from SIGTERM to SIGKILL when a point is stopped; also from
//                                  # mpirun's message about a killed rank to its end
//   command: [mpirun, …]           # see Execution::command
//   slurm: {partition: cpu, time: "04:00:00", parallel: 8}

#include <filesystem>
#include <string>
#include <vector>

#include "apps/sweep/fit/dataset.h"
#include "framework/config/value.h"

namespace fulcrum::apps {

struct AxisValue {
  std::string text;  // YAML, as an override writes it
  bool numeric = false;
  double number = 0.0;
};

struct Axis {
  std::string key;
  std::vector<AxisValue> values;
};

struct FitSpec {
  std::string x = "model.budget.rho";
  FitKind kind = FitKind::u_curve;
  std::string loss = "validation_loss";  // key of result.json
  std::string seed = "train.seed";       // the axis of repeats
};

// How points run. Nothing here changes what a point is, so all of it may change when a sweep
// resumes.
struct Execution {
  std::int64_t ranks = 1;
  std::int64_t threads = 0;
  std::int64_t jobs = 0;
  std::int64_t retries = 1;
  double timeout_minutes = 0.0;
  double grace_seconds = 60.0;
  // Arguments of one attempt; {fulcrum}, {ranks}, {threads}, {grace}, {config} and {run_dir} are
  // replaced, and the argument {resume} becomes --resume when an earlier attempt left files in the
  // run folder, else nothing.
  std::vector<std::string> command = {"mpirun",    "-n",
                                      "{ranks}",   "--bind-to",
                                      "none",      "--oversubscribe",
                                      "--mca",     "odls_base_sigkill_timeout",
                                      "{grace}",   "{fulcrum}",
                                      "train",     "{config}",
                                      "--run-dir", "{run_dir}",
                                      "{resume}"};
};

struct SlurmSpec {
  std::string partition, account;
  std::string time = "04:00:00";
  std::int64_t parallel = 4;         // array tasks at once
  std::int64_t requeues = 20;        // of a point that ran out of time
  std::vector<std::string> options;  // further #SBATCH lines, "--mem=16G"
};

struct SweepSpec {
  std::filesystem::path path;
  std::filesystem::path base;
  std::vector<std::string> set;
  std::vector<Axis> axes;
  std::vector<std::vector<std::pair<std::string, AxisValue>>> exclude;
  FitSpec fit;
  Execution execution;
  SlurmSpec slurm;

  const Axis* axis(std::string_view key) const;
};

// Throws UserError with file:line:column for unknown keys, wrong types and broken rules.
SweepSpec load_sweep(const std::filesystem::path& path);

}  // namespace fulcrum::apps
