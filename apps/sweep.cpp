#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/overrides.h"
#include "apps/sweep/driver.h"
#include "apps/sweep/lock.h"
#include "apps/sweep/point_state.h"
#include "apps/sweep/process.h"
#include "apps/sweep/report.h"
#include "apps/sweep/slurm.h"
#include "framework/core/error.h"
#include "framework/core/file.h"

namespace fulcrum::apps {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct SweepArguments {
  std::string spec, run_dir;
  std::vector<std::string> overrides;
  bool dry_run = false, resume = false, slurm = false, collect = false, json = false;
  std::int64_t jobs = -1, retries = -1, point = -1;
};

std::string this_program() { return fs::read_symlink("/proc/self/exe").string(); }

// Under mpirun every rank but the first has nothing to do: the points are processes of their own.
bool other_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    if (const char* rank = std::getenv(name)) return std::atoi(rank) > 0;
  }
  return false;
}

void print_plan(const Manifest& manifest, bool json) {
  const Execution& e = manifest.execution;
  if (json) {
    Json points = Json::array();
    for (const PlannedPoint& point : manifest.points)
      points.push_back({{"id", point.id},
                        {"name", point.name},
                        {"overrides", point.overrides},
                        {"state", name_of(checked_state(manifest, point).status)}});
    std::printf("%s\n", Json{{"run_dir", manifest.dir.string()},
                             {"jobs", e.jobs},
                             {"ranks", e.ranks},
                             {"threads", e.threads},
                             {"points", points}}
                            .dump(2)
                            .c_str());
    return;
  }
  for (const PlannedPoint& point : manifest.points)
    std::printf("%s  %s  %s\n", point.id.c_str(), name_of(checked_state(manifest, point).status),
                point.name.c_str());
  std::printf("%zu points in %s; %ld at once, each with %ld ranks of %ld threads\n",
              manifest.points.size(), manifest.dir.c_str(), static_cast<long>(e.jobs),
              static_cast<long>(e.ranks), static_cast<long>(e.threads));
}

Settings settings_of(const Manifest& manifest) {
  const Execution& e = manifest.execution;
  return {{"specification", manifest.spec_path},
          {"folder", manifest.dir.string()},
          {"points", fmt::format("{}", manifest.points.size())},
          {"fit", fmt::format("{} over {}", manifest.fit.loss, manifest.fit.x)},
          {"ranks × threads of a point", fmt::format("{} × {}", e.ranks, e.threads)},
          {"points at once", fmt::format("{}", e.jobs)},
          {"command", fmt::format("{}", fmt::join(e.command, " "))},
          {"version", FULCRUM_VERSION},
          {"written", utc_now()}};
}

// Fit, curve and report of what is done; throws when something is not.
void finish(const Manifest& manifest, const SweepSummary& summary, bool json) {
  const FitReport report = fit_dataset(read_sweep(manifest));
  const fs::path html = manifest.dir / "report.html";
  Json fit = to_json(report);
  replace_file(manifest.dir / "fit.json", fit.dump(2) + "\n");
  const std::string title = fmt::format("Sweep {}", fs::path(manifest.spec_path).stem().string());
  replace_file(html, html_report(report, title, settings_of(manifest)));
  if (json) {
    std::printf("%s\n", Json{{"total", summary.total},
                             {"done", summary.done},
                             {"unfinished", summary.unfinished},
                             {"interrupted", summary.interrupted},
                             {"report", html.string()},
                             {"fit", fit}}
                            .dump(2)
                            .c_str());
  } else {
    std::printf("\n%s\nreport: %s\n", to_text(report).c_str(), html.c_str());
  }
  std::fflush(stdout);
  if (summary.unfinished.empty()) return;
  throw IoError(
      fmt::format("{}: {}{} of {} points are not done:\n  {}\n  --resume goes on with them.",
                  manifest.dir.string(), summary.interrupted ? "interrupted; " : "",
                  summary.unfinished.size(), summary.total, fmt::join(summary.unfinished, "\n  ")));
}

Manifest plan(const SweepArguments& arguments) {
  SweepSpec spec = load_sweep(arguments.spec);
  spec.set.insert(spec.set.end(), arguments.overrides.begin(), arguments.overrides.end());
  if (arguments.jobs >= 0) spec.execution.jobs = arguments.jobs;
  if (arguments.retries >= 0) spec.execution.retries = arguments.retries;
  if (arguments.slurm)
    spec.execution.threads = std::max<std::int64_t>(1, spec.execution.threads);
  else
    share_cores(spec.execution, available_cores());
  const fs::path dir =
      arguments.run_dir.empty() ? fs::path("runs") / spec.path.stem() : fs::path(arguments.run_dir);
  return plan_sweep(spec, dir, resolve_experiment);
}

void run_sweep(const SweepArguments& arguments) {
  if (other_rank()) return;
  const std::string program = this_program();
  SweepProgress progress(arguments.json);
  if (arguments.point >= 0 || arguments.collect) {
    if (arguments.run_dir.empty())
      throw UserError("--run-dir: is needed with --point and --collect");
    const Manifest manifest = read_manifest(arguments.run_dir);
    if (arguments.collect) return finish(manifest, summarize(manifest), arguments.json);
    const SweepSummary summary = run_point(manifest, arguments.point, program, progress);
    if (!summary.unfinished.empty()) throw IoError(summary.unfinished.front());
    return;
  }
  if (arguments.spec.empty())
    throw UserError(
        "a specification is needed, such as configs/quickstart/sweep.yaml; see fulcrum sweep "
        "--help");
  const Manifest planned = plan(arguments);
  if (arguments.dry_run) return print_plan(planned, arguments.json);
  std::error_code error;
  fs::create_directories(planned.dir, error);
  if (error)
    throw IoError(fmt::format("{}: cannot be made: {}", planned.dir.string(), error.message()));
  const FolderLock lock(planned.dir / "lock", "this sweep");
  settle_folder(planned, arguments.resume);
  if (arguments.slurm) {
    const fs::path submit = write_slurm(planned, program);
    std::printf("%zu points planned\nsubmit:  sh %s\ncollect: %s sweep --collect --run-dir %s\n",
                planned.points.size(), submit.c_str(), program.c_str(), planned.dir.c_str());
    return;
  }
  const Execution& e = planned.execution;
  progress.say(fmt::format("{} points in {}; {} at once, each with {} ranks of {} threads",
                           planned.points.size(), planned.dir.string(), e.jobs, e.ranks,
                           e.threads));
  const SweepSummary summary = run_points(planned, program, progress);
  finish(planned, summary, arguments.json);
}

}  // namespace

void add_sweep(CLI::App& app) {
  auto arguments = std::make_shared<SweepArguments>();
  CLI::App* sweep =
      app.add_subcommand("sweep", "Run the points of a sweep, fit the curve and write a report");
  sweep->add_option("spec", arguments->spec,
                    "Sweep specification (YAML; apps/sweep/spec.h documents its keys)");
  add_overrides(*sweep, arguments->overrides);
  sweep->add_option("--run-dir", arguments->run_dir,
                    "Folder of the sweep [runs/NAME of the specification]");
  sweep->add_flag("--dry-run", arguments->dry_run, "Print the points and stop");
  sweep->add_flag(
      "--resume", arguments->resume,
      "Go on with an existing folder: skip what is done, continue or try again the rest");
  sweep->add_option("--jobs", arguments->jobs, "Points at once; 0: as many as cores allow")
      ->check(CLI::Range(0, 4096));
  sweep->add_option("--retries", arguments->retries, "Further attempts of a failed point")
      ->check(CLI::Range(0, 1000));
  sweep->add_flag("--slurm", arguments->slurm, "Write a Slurm array script instead of running");
  sweep->add_flag("--collect", arguments->collect, "Fit and report what is done in --run-dir");
  sweep->add_option("--point", arguments->point,
                    "Run one point of --run-dir by its index (a Slurm array task)");
  sweep->add_flag("--json", arguments->json, "Print JSON");
  sweep->footer(
      "Examples:\n  fulcrum sweep configs/quickstart/sweep.yaml --run-dir runs/quickstart/sweep\n"
      "  fulcrum sweep configs/quickstart/sweep.yaml --run-dir runs/quickstart/sweep --resume");
  sweep->callback([arguments] { run_sweep(*arguments); });
}

}  // namespace fulcrum::apps
