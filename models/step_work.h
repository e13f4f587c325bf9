#pragma once
// What one rank must do in a training step, operator by operator, from which `fulcrum bench` makes
// the step's floor at a device's ceilings:
//
//   floor of an operator = max(flops / rate of matrix products, bytes / rate of copies)
//   floor of a region    = Σ over its operators, which follow each other
//
// flops are those of matrix products, attention's and Newton–Schulz's among them. bytes are what
// must cross memory with each input read once and each output written once by the operators as they
// are fused now: an operator that were fused with its neighbour would lower the floor itself. Which
// passes an operator makes stands in one table (step_work.cpp).
//
// Left out: vectors of parameters and statistics of rows, sorting, what travels between ranks,
// rounding of operands where a CPU multiplies in bf16, the start of kernels. Slots of experts that
// a capacity drops count as kept. Caches are not counted on: tensors that fit one can beat their
// floor. On a CPU so can updates in place, the optimizer's, for a copy has to read what it
// overwrites.

#include <cstdint>
#include <string>
#include <vector>

#include "framework/autograd/recompute.h"
#include "framework/core/region.h"
#include "models/config.h"

namespace fulcrum::models {

struct StepShape {
  std::int64_t tokens = 0;  // of one micro-batch of a rank
  std::int64_t sequence_length = 0;
  std::int64_t micro_batches = 1;  // of a rank in a step
  std::int64_t element = 4;        // bytes of an activation and of a matrix's value: 4, or 2 (bf16)
  bool turns_in_place = false;     // rotary_attention turns queries and keys where they lie
  bool reads_in_place = false;     // a GPU holds the tables alone (models/memory.h)
  Recompute recompute = Recompute::none;
  std::int64_t optimizer_ranks = 1;  // that divide the optimizer's work
  std::int64_t moment = 4;           // bytes of AdamW's moments, but those of vectors and routers
  std::int64_t newton_schulz = 0;    // Muon's iterations; 0: AdamW for matrices too
  double touched_rows = 0.0;         // different table rows that the rank uses in a step
};

// All executions of an operator in a step, in one direction.
struct OperatorWork {
  Region region;
  std::string name;  // "gate_up forward"
  double flops = 0.0;
  double bytes = 0.0;
  // Of flops: products that backward forms a second time, as recompute and attention do. Without
  // them, forward and backward sum to flops_per_token (models/budget.h).
  double repeated = 0.0;
};

// The budget is solved and the vocabulary known. Throws ArgumentError for models that cannot be
// trained yet (attention other than full, hyper-connections).
std::vector<OperatorWork> step_work(const ModelConfig& model, const StepShape& shape);

}  // namespace fulcrum::models
