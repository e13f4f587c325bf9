#pragma once
// The time of whole training steps on random tokens: no data, no checkpoints.

#include <cstdint>
#include <map>
#include <string>

#include "apps/train/config.h"
#include "framework/nn/parameter.h"
#include "parallel/mesh.h"

namespace fulcrum::apps {

struct StepTiming {
  double seconds = 0.0;                   // of a whole step, the median one
  double tokens_per_second = 0.0;         // of all ranks
  double flops = 0.0;                     // model FLOP/s of one rank: no recomputation counted
  double loss = 0.0;                      // of the last step
  double peak_gib = 0.0;                  // of this rank's pool
  double touched_rows = 0.0;              // different table rows of a step, mean, of all ranks
  std::map<std::string, double> regions;  // its seconds by region of the model, and idle
};

// The configuration's model, batch, optimizer and precision; model.vocabulary must be given, and
// data.path is not read. Collective.
StepTiming time_steps(const ExperimentConfig& config, const parallel::Mesh& mesh,
                      ParameterStore::Placement placement, std::int64_t steps);

}  // namespace fulcrum::apps
