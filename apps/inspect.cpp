#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "apps/commands.h"
#include "apps/inspect/inspection.h"
#include "framework/checkpoint/reader.h"

namespace fulcrum::apps {
namespace {

struct InspectArguments {
  std::string path;
  std::string attribute;
  bool verify = false;
  bool json = false;
};

void print_attribute(const InspectArguments& arguments) {
  const checkpoint::CheckpointReader reader(arguments.path);
  const auto found = reader.attributes().find(arguments.attribute);
  if (found == reader.attributes().end()) {
    std::string names;
    for (const auto& [name, value] : reader.attributes())
      names += (names.empty() ? "" : ", ") + name;
    throw UserError(fmt::format("{}: no attribute '{}'; there are: {}", reader.folder().string(),
                                arguments.attribute, names));
  }
  const std::string text =
      std::visit([](const auto& v) { return fmt::format("{}", v); }, found->second);
  std::printf("%s%s", text.c_str(), !text.empty() && text.back() == '\n' ? "" : "\n");
}

void run_inspect(const InspectArguments& arguments) {
  if (!arguments.attribute.empty()) return print_attribute(arguments);
  const Inspection inspection = inspect(arguments.path, arguments.verify);
  const std::string text =
      arguments.json ? to_json(inspection).dump(2) + "\n" : to_text(inspection);
  std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* inspect =
      app.add_subcommand("inspect", "Show what a checkpoint holds, and verify its checksums");
  inspect
      ->add_option("path", arguments->path,
                   "A folder of checkpoints (its latest), one checkpoint, or an .h5 file of it")
      ->required();
  inspect->add_flag("--verify", arguments->verify, "Compare every byte with the checksums");
  inspect->add_flag("--json", arguments->json, "Print JSON");
  inspect->add_option("--attribute", arguments->attribute,
                      "Print only this attribute, such as the configuration of the run");
  inspect->footer(
      "Examples:\n  fulcrum inspect runs/quickstart/base/checkpoints --verify\n"
      "  fulcrum inspect runs/quickstart/base/checkpoints/step-300 --json");
  inspect->callback([arguments] { run_inspect(*arguments); });
}

}  // namespace fulcrum::apps
