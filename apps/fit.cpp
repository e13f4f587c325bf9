#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "apps/commands.h"
#include "apps/sweep/fit/output.h"
#include "apps/sweep/point_state.h"
#include "apps/sweep/report.h"
#include "framework/core/error.h"
#include "framework/core/file.h"

namespace fulcrum::apps {
namespace {

struct FitArguments {
  std::string input;
  std::string report;
  bool json = false;
  bool log_linear = false;
  UCurveOptions options;
};

Dataset read_input(const FitArguments& arguments) {
  if (!std::filesystem::is_directory(arguments.input))
    return read_csv(arguments.input, arguments.log_linear ? FitKind::log_linear : FitKind::u_curve);
  Manifest manifest = read_manifest(arguments.input);
  if (arguments.log_linear) manifest.fit.kind = FitKind::log_linear;
  return read_sweep(manifest);
}

void run_fit(const FitArguments& arguments) {
  const FitReport report = fit_dataset(read_input(arguments), arguments.options);
  if (!arguments.report.empty())
    replace_file(arguments.report,
                 html_report(report, "Fit of " + arguments.input, {{"version", FULCRUM_VERSION}}));
  if (arguments.json)
    std::printf("%s\n", to_json(report).dump(2).c_str());
  else
    std::fputs(to_text(report).c_str(), stdout);
}

}  // namespace

void add_fit(CLI::App& app) {
  auto arguments = std::make_shared<FitArguments>();
  CLI::App* fit =
      app.add_subcommand("fit", "Fit the curve of a sweep: loss over rho, or over memory slots");
  fit->add_option("input", arguments->input,
                  "A sweep's folder, or a table with the columns rho,loss[,seed][,flops]")
      ->required();
  fit->add_flag("--json", arguments->json, "Print JSON");
  fit->add_flag("--log-linear", arguments->log_linear,
                "Fit loss = a + b log10(slots / 1e6); the table's first column is then slots");
  fit->add_option("--report", arguments->report, "Also write an HTML report to this file");
  fit->add_option("--draws", arguments->options.draws, "Bootstrap draws; 0 leaves intervals out")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000000));
  fit->add_option("--confidence", arguments->options.confidence, "Level of the intervals")
      ->capture_default_str()
      ->check(CLI::Range(0.5, 0.999));
  fit->add_option("--seed", arguments->options.seed, "Of the bootstrap")->capture_default_str();
  fit->footer("Examples:\n  fulcrum fit runs/quickstart/sweep\n  fulcrum fit points.csv --json");
  fit->callback([arguments] { run_fit(*arguments); });
}

}  // namespace fulcrum::apps
