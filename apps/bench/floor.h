#pragma once
// The floor of a training step (models/step_work.h) at the ceilings of the device, beside its time.

#include <map>
#include <string>
#include <vector>

#include "apps/bench/case.h"
#include "apps/bench/step.h"
#include "models/step_work.h"

namespace fulcrum::apps {

// Seconds that no implementation of the same operators can go below. Operators count whole where
// they take longer: their products at the ceiling of matrix products, attention's too, or their
// bytes at that of copies.
struct Floor {
  double products = 0.0;
  double memory = 0.0;

  double seconds() const { return products + memory; }
};

struct StepFloor {
  std::vector<models::OperatorWork> work;  // of this rank
  std::map<std::string, Floor> regions;    // as in StepTiming; those with work
  Floor total;
};

// Of the step that was timed, on any of its ranks.
StepFloor step_floor(const ExperimentConfig& config, const parallel::Mesh& mesh,
                     ParameterStore::Placement placement, const StepTiming& timing,
                     const Ceilings& ceilings);

// A table in milliseconds: time, floor, the operators in it that are bound by products and by
// memory, and the time beyond it, of each region and of the whole step. Regions without work, such
// as idle, have a time alone.
std::string floor_report(const StepTiming& timing, const StepFloor& floor,
                         const Ceilings& ceilings);

}  // namespace fulcrum::apps
