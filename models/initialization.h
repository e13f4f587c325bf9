#pragma once

#include <cmath>

#include "models/config.h"

namespace fulcrum::models {

// Standard deviation of projections that end in the residual stream (GPT-2 section 2.3): each of
// the 2 · layers updates adds its variance, so that the stream's stays near that of one.
inline double residual_std(const ModelConfig& config) {
  return config.scale_residual_init
             ? config.init_std / std::sqrt(2.0 * static_cast<double>(config.layers))
             : config.init_std;
}

}  // namespace fulcrum::models
