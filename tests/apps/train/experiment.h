#pragma once
// A tiny experiment for end-to-end tests of `fulcrum train`: a prepared folder of synthetic text
// and a YAML file, in a temporary folder.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "framework/checkpoint/reader.h"
#include "tests/subprocess.h"
#include "tests/temporary_folder.h"

namespace fulcrum::testing {

// What metrics.jsonl says about a step.
struct LoggedStep {
  double loss = 0.0;
  double total_loss = 0.0;
  double gradient_norm = 0.0;
  double learning_rate = 0.0;
  bool operator==(const LoggedStep&) const = default;
};

class Experiment {
 public:
  // Documents of words over the byte vocabulary, 258 entries, pseudo-random but learnable.
  explicit Experiment(std::uint64_t text_seed = 1);

  std::filesystem::path folder() const { return folder_.path(); }
  std::filesystem::path data() const { return folder_ / "data"; }
  std::filesystem::path config() const { return folder_ / "experiment.yaml"; }
  std::filesystem::path run_dir(const std::string& name) const { return folder_ / name; }
  std::filesystem::path checkpoints(const std::string& name) const {
    return run_dir(name) / "checkpoints";
  }

  // "mpirun -n RANKS fulcrum train experiment.yaml --run-dir RUN", plain `fulcrum` for one rank.
  // On the CPU, unless `arguments`, text such as "--resume --set train.steps=3", has device=cuda.
  std::string command(int ranks, const std::string& run, const std::string& arguments = "") const;
  Finished train(int ranks, const std::string& run, const std::string& arguments = "",
                 int limit_seconds = 60) const;

  // Waits until a run has logged a step. Fails when it ends before.
  void wait_for_step(const std::string& run, Process& job) const;

  // Steps of a run's metrics.jsonl. Fails when one appears twice.
  std::map<std::int64_t, LoggedStep> steps(const std::string& run) const;
  // Validation losses by step. Fails when a step has two that
  // differ: a finished run that is resumed validates again.
  std::map<std::int64_t, double> validation(const std::string& run) const;

 private:
  TemporaryFolder folder_;
};

// Options that make a model of the kind: "dense", "moe-loss" (expert balance loss of the global
// batch), "moe-bias" (balancing by bias), "dse" (moe-bias with a sharded n-gram memory).
std::string model_options(const std::string& kind);

// Fails unless two checkpoints hold the same tensors, bit for bit; `but` is the beginning of names
// that may differ.
void require_same_tensors(const std::filesystem::path& a, const std::filesystem::path& b,
                          const std::string& but = "-");

void require_ok(const Finished& job);

// Times that `part` occurs in `text`.
int count(const std::string& text, const std::string& part);

}  // namespace fulcrum::testing
