#pragma once
// What travels with the hidden states through one forward pass: the batch, and what layers report
// besides their output.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/batch.h"
#include "framework/autograd/recompute.h"
#include "framework/core/tensor.h"
#include "parallel/communicator.h"

namespace fulcrum::models {

// Load of experts that balance losses are made from (models/load_statistics.h).
struct LoadCounts {
  Tensor experts;  // i64 [experts]
  Tensor groups;   // i64 [groups], or undefined
  // What a loss that is linear in the counts is to be weighted with, so that they count for as many
  // tokens as one pass has.
  double scale = 1.0;
};

// What the first of a block's two runs leaves for the second, when the block is recomputed in
// backward: nothing is counted or reported twice.
struct FirstRun {
  bool done = false;
  LoadCounts load;
  std::vector<Tensor> gate_means, dropped_slots;  // as in ForwardPass
};

struct ForwardPass {
  const data::Batch& batch;  // where the model computes
  bool training = true;
  // The same batch on the host, which ranks that share tables on GPUs need; null where none do.
  const data::Batch* host_batch = nullptr;
  // Ranks that share the global batch: balance statistics are summed over them.
  const parallel::Communicator* data_ranks = nullptr;
  // Number of data ranks times this micro-batch's tokens.
  std::int64_t global_tokens = 0;
  // Weight of one token of this micro-batch in the loss of the step: 1 / tokens of the global
  // batch.
  double token_weight = 1.0;
  Recompute recompute = Recompute::none;
  std::shared_ptr<FirstRun> first_run;  // of the block under way, with full recompute

  // Auxiliary losses, [1] each, already weighted so that their sum over ranks and micro-batches is
  // the step's.
  std::vector<Tensor> auxiliary;

  // For telemetry, detached, [1] each and where the model computes, so that reading them waits for
  // nothing before the step has ended: the mean gate of each memory, in layer order; the slots that
  // each mixture dropped.
  std::vector<Tensor> gate_means;     // f32 or f64
  std::vector<Tensor> dropped_slots;  // i64
};

}  // namespace fulcrum::models
