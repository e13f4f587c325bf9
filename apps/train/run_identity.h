#pragma once
// What names a run, and what a resumed run must share with the one that saved.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "apps/train/config.h"
#include "data/prepared_data.h"

namespace fulcrum::apps {

struct RunIdentity {
  std::string config;        // resolved, YAML
  std::string config_hash;   // of the experiment as configured: a sweep knows its points by it
  std::string numbers_hash;  // of the model, the seed and the data order: a resumed run keeps these
  std::string data_checksum;  // of the prepared folder
};

// `config` is complete; `config_hash` is that of the same experiment before the data and the budget
// filled in values.
RunIdentity identify(const ExperimentConfig& config, const std::string& config_hash,
                     const data::PreparedData& data);

// What differs between two RunIdentity::config in the model, the seed and the data order:
// "model.width was 64, is 32; …", or nothing. `saved` may come from another version of this
// program: keys that it lacks have their defaults. Throws UserError, which begins with `source`,
// when it has keys that this version does not know.
std::string changed_numbers(const std::string& saved, const std::string& source,
                            const std::string& config);

// {"total", "active", "embedding", "experts", "memory", "other"}
nlohmann::json parameter_summary(const models::ModelConfig& model);

}  // namespace fulcrum::apps
