#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "apps/commands.h"
#include "apps/sweep/fit/output.h"
#include "framework/core/error.h"

namespace fulcrum::apps {
namespace {

struct FitArguments {
  std::string input;
  bool json = false;
  bool log_linear = false;
  UCurveOptions options;
};

void run_fit(const FitArguments& arguments) {
  const FitKind kind = arguments.log_linear ? FitKind::log_linear : FitKind::u_curve;
  const FitReport report = fit_dataset(read_csv(arguments.input, kind), arguments.options);
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
  fit->add_option("--draws", arguments->options.draws, "Bootstrap draws; 0 leaves intervals out")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000000));
  fit->add_option("--confidence", arguments->options.confidence, "Level of the intervals")
      ->capture_default_str()
      ->check(CLI::Range(0.5, 0.999));
  fit->add_option("--seed", arguments->options.seed, "Of the bootstrap")->capture_default_str();
  fit->footer("Example:\n  fulcrum fit runs/quickstart\n  fulcrum fit points.csv --json");
  fit->callback([arguments] { run_fit(*arguments); });
}

}  // namespace fulcrum::apps
