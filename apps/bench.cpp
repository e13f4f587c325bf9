// fulcrum bench: the time of operators and of whole steps, beside what the device can do.

#include <nlohmann/json.hpp>

#include "apps/bench/case.h"
#include "apps/bench/floor.h"
#include "apps/bench/step.h"
#include "apps/commands.h"
#include "apps/device_choice.h"
#include "apps/exit_code.h"
#include "apps/overrides.h"
#include "apps/train/config_parser.h"
#include "apps/train/placement.h"
#include "framework/config/suggest.h"
#include "framework/core/cuda_memory.h"
#include "framework/core/memory_pool.h"
#include "framework/telemetry/progress.h"
#include "models/budget_solver.h"
#include "parallel/session.h"

namespace fulcrum::apps {
namespace {

struct Arguments {
  std::string config;
  std::vector<std::string> overrides;
  std::vector<std::string> only;  // groups
  std::string device = "auto";
  std::int64_t steps = 12;
  bool json = false;
};

nlohmann::json to_json(const BenchResult& r) {
  return {{"name", r.name},
          {"shape", r.shape},
          {"seconds", r.seconds},
          {"flops_per_second", r.work.flops / r.seconds},
          {"bytes_per_second", r.work.bytes / r.seconds},
          {"floor_seconds", r.floor_seconds}};
}

nlohmann::json to_json(const Ceilings& c) {
  return {{"flops_per_second", c.flops}, {"bytes_per_second", c.bytes}};
}

nlohmann::json to_json(const StepFloor& floor) {
  nlohmann::json regions, operators;
  for (const auto& [region, part] : floor.regions) regions[region] = part.seconds();
  for (const models::OperatorWork& work : floor.work) {
    operators.push_back({{"region", name_of(work.region)},
                         {"name", work.name},
                         {"flops", work.flops},
                         {"bytes", work.bytes}});
  }
  return {{"seconds", floor.total.seconds()}, {"regions", regions}, {"operators", operators}};
}

void check_groups(const std::vector<std::string>& only, const std::vector<BenchGroup>& groups) {
  std::vector<std::string> names;
  for (const BenchGroup& group : groups) {
    if (std::find(names.begin(), names.end(), group.name) == names.end())
      names.push_back(group.name);
  }
  for (const std::string& name : only) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    throw UserError(
        fmt::format("--only: {}: no group of operators{}", name, config::suggestion(name, names)));
  }
}

void bench_operators(const Arguments& arguments, parallel::Session& session) {
  if (!arguments.overrides.empty()) {
    throw UserError("--set: needs a configuration: operators have sizes of their own");
  }
  session.set_threads(0);
  const DeviceChoice choice = arguments.device == "cpu"    ? DeviceChoice::cpu
                              : arguments.device == "cuda" ? DeviceChoice::cuda
                                                           : DeviceChoice::automatic;
  const Device device = choose_device(choice, session.local_rank());
  const DType dtype = device.is_cpu() ? DType::f32 : DType::bf16;
  std::vector<BenchGroup> groups = operator_groups(device, dtype);
  for (BenchGroup& group : optimizer_groups(device, dtype)) groups.push_back(std::move(group));
  check_groups(arguments.only, groups);
  const Ceilings ceilings = measure_ceilings(device, dtype);
  if (!arguments.json) {
    fmt::print("{}, {}: matrix product {:.1f} TFLOP/s, copy {:.1f} GB/s\n{}\n",
               device.is_cpu() ? "CPU" : cuda_device_name(device.index), dtype,
               ceilings.flops / 1e12, ceilings.bytes / 1e9, result_header());
  }
  nlohmann::json results = nlohmann::json::array();
  for (const BenchGroup& group : groups) {
    const auto& only = arguments.only;
    if (!only.empty() && std::find(only.begin(), only.end(), group.name) == only.end()) continue;
    for (const BenchCase& bench : group.make()) {
      for (const BenchResult& result : run_case(bench, device, ceilings)) {
        if (arguments.json) {
          results.push_back(to_json(result));
        } else {
          fmt::print("{}\n", result_line(result));
          std::fflush(stdout);
        }
      }
    }
    release_cached_memory(device);
  }
  if (!arguments.json) return;
  const nlohmann::json all = {{"device", device.is_cpu() ? "CPU" : cuda_device_name(device.index)},
                              {"ceilings", to_json(ceilings)},
                              {"operators", results}};
  fmt::print("{}\n", all.dump(2));
}

void bench_step(const Arguments& arguments, parallel::Session& session) {
  if (!arguments.only.empty()) {
    throw UserError(
        fmt::format("--only: chooses among operators; {} is timed whole", arguments.config));
  }
  ExperimentConfig config = load_experiment(arguments.config, arguments.overrides);
  if (config.model.vocabulary == 0) {
    throw UserError(
        fmt::format("{}: model.vocabulary: the bench draws random tokens and needs it; "
                    "give the key or --set model.vocabulary=16000",
                    arguments.config));
  }
  config.model = models::solve_budget(config.model);
  session.set_threads(config.threads);
  const ParameterStore::Placement placement = place(config, session.local_rank());
  const parallel::Mesh mesh(parallel::Communicator::world(), config.parallel.pipeline,
                            config.parallel.expert);
  const StepTiming t = time_steps(config, mesh, placement, arguments.steps);
  release_cached_memory(placement.device);
  // on all ranks at once, since they share what a host has
  const Ceilings ceilings = measure_ceilings(placement.device, placement.dtype);
  if (session.rank() != 0) return;
  const StepFloor floor = step_floor(config, mesh, placement, t, ceilings);
  const models::ParameterCount count = models::count_parameters(config.model);
  const std::string device =
      placement.device.is_cpu() ? "CPU" : cuda_device_name(placement.device.index);
  if (arguments.json) {
    nlohmann::json json = {{"device", device},
                           {"ranks", session.size()},
                           {"parameters", count.total},
                           {"seconds", t.seconds},
                           {"tokens_per_second", t.tokens_per_second},
                           {"flops_per_second", t.flops},
                           {"peak_gib", t.peak_gib},
                           {"loss", t.loss},
                           {"regions", t.regions},
                           {"floor", to_json(floor)},
                           {"ceilings", to_json(ceilings)}};
    fmt::print("{}\n", json.dump(2));
    return;
  }
  fmt::print(
      "{} x {}: {} parameters, step {:.2f} ms, {:.0f} tokens/s, {:.1f} TFLOP/s a rank, peak {:.1f} "
      "GiB, loss {:.4f}\n",
      session.size(), device, telemetry::short_number(static_cast<double>(count.total)),
      1e3 * t.seconds, t.tokens_per_second, t.flops / 1e12, t.peak_gib, t.loss);
  fmt::print("{}", floor_report(t, floor, ceilings));
}

}  // namespace

void add_bench(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* verb =
      app.add_subcommand("bench", "Time operators, or a whole step of a configuration");
  verb->add_option("config", arguments->config,
                   "experiment.yaml: times its training step on random tokens; without it, "
                   "operators are timed");
  add_overrides(*verb, arguments->overrides);
  verb->add_option("--steps", arguments->steps, "steps to time after the warm-up")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000}))
      ->capture_default_str();
  verb->add_option("--only", arguments->only,
                   "groups of operators: linear, attention, elementwise, vocabulary, experts, "
                   "grouped, arithmetic, router, softmax, batched, memory, optimizer");
  verb->add_option("--device", arguments->device, "of operators; a step takes the key `device`")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  verb->add_flag("--json", arguments->json, "machine-readable output");
  verb->footer(
      "Examples:\n  fulcrum bench --only attention experts\n"
      "  fulcrum bench configs/bench/dense-1b.yaml");
  verb->callback([arguments] {
    run_job([&](parallel::Session& session) {
      arguments->config.empty() ? bench_operators(*arguments, session)
                                : bench_step(*arguments, session);
    });
  });
}

}  // namespace fulcrum::apps
