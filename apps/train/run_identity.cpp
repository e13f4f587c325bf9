#include "apps/train/run_identity.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "apps/train/config_parser.h"
#include "framework/config/difference.h"
#include "framework/config/load.h"
#include "models/budget.h"

namespace fulcrum::apps {
namespace {

// Of the token shards and the tokenizer, as the manifest records them.
std::string checksum_of(const data::Manifest& manifest) {
  std::string text = fmt::format("{:016x}", manifest.tokenizer.digest.checksum);
  for (const data::SplitRecord* split : {&manifest.train, &manifest.valid}) {
    for (const data::ShardRecord& shard : split->shards) {
      text += fmt::format(" {:016x} {:016x}", shard.bin.checksum, shard.idx.checksum);
    }
  }
  return config::hash_text(text);
}

// What a resumed run keeps; the rest at values that are always the same.
ExperimentConfig numbers_of(const ExperimentConfig& config) {
  ExperimentConfig numbers;
  numbers.model = config.model;
  numbers.data.path = "-";
  numbers.train.steps = 1;
  numbers.train.seed = config.train.seed;
  numbers.train.sequence_length = config.train.sequence_length;
  numbers.train.global_batch = config.train.global_batch;
  return numbers;
}

config::Value numbers_in(const std::string& yaml, const std::string& source) {
  const ExperimentConfig config = parse_experiment(config::parse_yaml(yaml, source));
  return config::parse_yaml(to_yaml(numbers_of(config)), source);
}

}  // namespace

RunIdentity identify(const ExperimentConfig& config, const std::string& config_hash,
                     const data::PreparedData& data) {
  return {to_yaml(config), config_hash, apps::config_hash(numbers_of(config)),
          checksum_of(data.manifest())};
}

std::string changed_numbers(const std::string& saved, const std::string& source,
                            const std::string& config) {
  std::vector<std::string> found;
  for (const config::Difference& difference :
       config::differences(numbers_in(saved, source), numbers_in(config, "this run"))) {
    found.push_back(difference.text());
  }
  return fmt::format("{}", fmt::join(found, "; "));
}

nlohmann::json parameter_summary(const models::ModelConfig& model) {
  const models::ParameterCount count = models::count_parameters(model);
  return {{"total", count.total},     {"active", count.active}, {"embedding", count.embedding},
          {"experts", count.experts}, {"memory", count.memory}, {"other", count.other}};
}

}  // namespace fulcrum::apps
