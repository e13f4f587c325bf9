// fulcrum train: one experiment, on one rank or under mpirun.

#include "apps/commands.h"
#include "apps/exit_code.h"
#include "apps/overrides.h"
#include "apps/train/config_parser.h"
#include "apps/train/placement.h"
#include "apps/train/trainer.h"
#include "framework/core/cuda_memory.h"
#include "models/budget_solver.h"
#include "parallel/watchdog.h"

namespace fulcrum::apps {
namespace {

struct Arguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string run_dir;
  Resume resume;
};

// What the configuration leaves to the data and to the budget, and what this build cannot run.
void resolve(ExperimentConfig& config, const std::string& file, const data::PreparedData& data) {
  if (config.model.vocabulary == 0) config.model.vocabulary = data.vocabulary();
  if (config.model.vocabulary != data.vocabulary()) {
    throw UserError(fmt::format(
        "{}: model.vocabulary: {} does not match the {} entries of the tokenizer of {}; "
        "give that number, or 0 to take it from the data",
        file, config.model.vocabulary, data.vocabulary(), data.folder().string()));
  }
  config.model = models::solve_budget(config.model);
  const ParallelConfig& parallel = config.parallel;
  if (parallel.pipeline != 1 || parallel.expert != 1) {
    throw UserError(
        fmt::format("{}: parallel: pipeline {} and expert {}: can be planned, but not trained yet; "
                    "allowed: 1 and 1",
                    file, parallel.pipeline, parallel.expert));
  }
}

void train(const Arguments& arguments, parallel::Session& session) {
  ExperimentConfig config = load_experiment(arguments.config, arguments.overrides);
  const std::string hash = config_hash(config);
  if (!arguments.run_dir.empty()) config.run_dir = arguments.run_dir;
  if (config.run_dir.empty()) {
    throw UserError(
        fmt::format("{}: run_dir: required; give the key or --run-dir", arguments.config));
  }
  if (config.data.path.empty()) {
    throw UserError(fmt::format("{}: data.path: required; give a folder made by `fulcrum prepare`",
                                arguments.config));
  }
  const int threads = session.set_threads(config.threads);
  parallel::set_hang_timeout(config.parallel.hang_timeout_s);
  const ParameterStore::Placement placement = place(config, session.local_rank());

  const bool root = session.rank() == 0;
  const parallel::Communicator world = parallel::Communicator::world();
  // One rank reads every byte; the others wait for its verdict.
  const data::PreparedData data(config.data.path,
                                root ? data::Verify::checksums : data::Verify::sizes);
  world.barrier();
  resolve(config, arguments.config, data);
  const parallel::Mesh mesh(world, config.parallel.pipeline, config.parallel.expert);
  if (root) {
    const models::ParameterCount count = models::count_parameters(config.model);
    fmt::print("{} parameters ({} active, {} in experts, {} in memory); {} x {}; {}\n",
               telemetry::short_number(static_cast<double>(count.total)),
               telemetry::short_number(static_cast<double>(count.active)),
               telemetry::short_number(static_cast<double>(count.experts)),
               telemetry::short_number(static_cast<double>(count.memory)), mesh.shape().describe(),
               placement.device.is_cpu() ? fmt::format("{} threads", threads)
                                         : cuda_device_name(placement.device.index),
               config.run_dir);
    std::fflush(stdout);
  }
  Trainer trainer(config, hash, mesh, data, placement, arguments.resume);
  const TrainResult result = trainer.run();
  if (!result.finished) {
    throw IoError(
        fmt::format("stopped by a signal at step {} of {} with a checkpoint; go on with --resume",
                    result.step, config.train.steps));
  }
}

}  // namespace

void add_train(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("train", "Train the experiment of a YAML file");
  verb->add_option("config", arguments->config, "experiment.yaml")->required();
  add_overrides(*verb, arguments->overrides);
  verb->add_option("--run-dir", arguments->run_dir, "override run_dir");
  verb->add_flag("--resume", arguments->resume.wanted,
                 "go on from the newest checkpoint of the run folder; begin where there is none");
  verb->add_option("--resume-from", arguments->resume.checkpoint,
                   "go on from this checkpoint of the run folder: step-400");
  verb->footer(
      "Example:\n  mpirun -n 2 --bind-to none fulcrum train configs/quickstart/experiment.yaml "
      "--set train.steps=100");
  verb->callback([arguments] {
    if (!arguments->resume.checkpoint.empty()) arguments->resume.wanted = true;
    run_job([&](parallel::Session& session) { train(*arguments, session); });
  });
}

}  // namespace fulcrum::apps
