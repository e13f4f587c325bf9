#include "apps/train/run_identity.h"

#include <nlohmann/json.hpp>

#include "apps/train/config_parser.h"
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

}  // namespace

RunIdentity identify(const ExperimentConfig& config, const std::string& config_hash,
                     const data::PreparedData& data) {
  ExperimentConfig numbers = config;
  numbers.device = DeviceChoice::automatic;
  numbers.threads = 0;
  numbers.data.path = "-";
  numbers.checkpoint = {};
  numbers.parallel = {};
  numbers.train = {};
  numbers.train.steps = 1;
  numbers.train.seed = config.train.seed;
  numbers.train.sequence_length = config.train.sequence_length;
  numbers.train.global_batch = config.train.global_batch;
  return {to_yaml(config), config_hash, apps::config_hash(numbers), checksum_of(data.manifest())};
}

nlohmann::json parameter_summary(const models::ModelConfig& model) {
  const models::ParameterCount count = models::count_parameters(model);
  return {{"total", count.total},     {"active", count.active}, {"embedding", count.embedding},
          {"experts", count.experts}, {"memory", count.memory}, {"other", count.other}};
}

}  // namespace fulcrum::apps
