#pragma once
// `--set KEY=VALUE`, the same for every verb that reads an experiment.

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace fulcrum::apps {

// Adds the option; `overrides` receives its values in the order of the command line.
CLI::Option* add_overrides(CLI::App& verb, std::vector<std::string>& overrides);

// Writes `--set a=1 b=2` as `--set a=1 --set b=2`: words that look like KEY=VALUE belong to the
// --set before them, and no other word does, so that `--set a=1 experiment.yaml` keeps its file.
std::vector<std::string> separate_overrides(const std::vector<std::string>& arguments);

}  // namespace fulcrum::apps
