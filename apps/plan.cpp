#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "apps/commands.h"
#include "apps/overrides.h"
#include "apps/plan/report.h"
#include "apps/train/config_parser.h"

namespace fulcrum::apps {
namespace {

struct PlanArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::int64_t ranks = 1;
  bool json = false;
  bool tensors = false;
  bool yaml = false;
};

void run_plan(const PlanArguments& arguments) {
  const ExperimentConfig experiment = load_experiment(arguments.config, arguments.overrides);
  if (arguments.yaml) {
    std::fputs(to_yaml(experiment).c_str(), stdout);
    return;
  }
  const Plan plan = make_plan(experiment, arguments.ranks);
  if (arguments.tensors)
    std::fputs(tensors_text(plan).c_str(), stdout);
  else if (arguments.json)
    std::printf("%s\n", to_json(plan).dump(2).c_str());
  else
    std::fputs(to_text(plan).c_str(), stdout);
}

}  // namespace

void add_plan(CLI::App& app) {
  auto arguments = std::make_shared<PlanArguments>();
  CLI::App* plan = app.add_subcommand(
      "plan", "Show an experiment's parameters, budget, work and memory without running it");
  plan->add_option("config", arguments->config, "An experiment's YAML file")->required();
  add_overrides(*plan, arguments->overrides);
  plan->add_option("--ranks", arguments->ranks, "Processes of the run (mpirun -n)")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 24));
  auto* json = plan->add_flag("--json", arguments->json, "Print JSON");
  auto* tensors =
      plan->add_flag("--tensors", arguments->tensors, "Print every tensor with its shape");
  plan->add_flag("--yaml", arguments->yaml, "Print the resolved configuration with every key")
      ->excludes(json)
      ->excludes(tensors);
  tensors->excludes(json);
  plan->footer(
      "Examples:\n  fulcrum plan configs/paper/dse-27b.yaml --ranks 8\n"
      "  fulcrum plan configs/paper/dse-27b.yaml --set model.dse=null --json");
  plan->callback([arguments] { run_plan(*arguments); });
}

}  // namespace fulcrum::apps
