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

// 32 hexadecimal digits of everything but run_dir: two runs of one hash are the same experiment.
std::string config_hash(const ExperimentConfig& experiment);

// Rules between the experiment and the number of processes. Throws UserError that names the
// factors.
void check_ranks(const ExperimentConfig& experiment, std::int64_t ranks);

// Sequences that one rank computes at once: train.micro_batch, or its share of the global batch.
std::int64_t micro_batch(const ExperimentConfig& experiment, std::int64_t ranks);

}  // namespace fulcrum::apps
