#pragma once
// The `model:` section of an experiment: keys, ranges and the rules between keys.

#include "framework/config/section.h"
#include "models/config.h"

namespace fulcrum::models {

// Binds every key of ModelConfig and checks every rule. Fields whose 0 means "as another one"
// (attention.kv_heads, attention.head_dim, value and compression widths) hold that value
// afterwards; `vocabulary: 0` stays.
void bind(config::Section& section, ModelConfig& model);

// The same rules for a ModelConfig that a program made. Throws UserError "model.key: …".
void validate(const ModelConfig& model);

}  // namespace fulcrum::models
