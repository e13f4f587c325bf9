#pragma once
// Where two configurations differ, key by key.

#include <string>
#include <vector>

#include "framework/config/value.h"

namespace fulcrum::config {

struct Difference {
  std::string key;            // "train.steps"
  std::string before, after;  // values as YAML; "nothing" where the key is absent

  std::string text() const;  // "train.steps was 100, is 200"
};

// In the order of the keys' names. Lists count as one value.
std::vector<Difference> differences(const Value& before, const Value& after);

}  // namespace fulcrum::config
