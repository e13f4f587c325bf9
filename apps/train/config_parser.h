#pragma once
// One experiment: from the YAML file of `fulcrum train`, and back with every key.

#include <filesystem>
#include <string>
#include <vector>

#include "apps/train/config.h"
#include "framework/config/section.h"

namespace fulcrum::apps {

void bind(config::Section& section, ExperimentConfig& experiment);

// Reads the file and what it extends, applies the overrides ("train.steps=100") and checks every
// rule that holds whatever the number of ranks. Throws UserError.
ExperimentConfig load_experiment(const std::filesystem::path& path,
                                 const std::vector<std::string>& overrides = {});
ExperimentConfig parse_experiment(const config::Value& root);

// The resolved configuration: canonical YAML with every key. parse_experiment reads it back to the
// same text.
std::string to_yaml(const ExperimentConfig& experiment);

// 32 hexadecimal digits of everything but run_dir and threads: two runs of one hash are the same
// experiment. Taken before the data and the budget fill in values, so that it can be known without
// them.
std::string config_hash(const ExperimentConfig& experiment);

}  // namespace fulcrum::apps
