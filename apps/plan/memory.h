#pragma once
// Memory of one rank of a training run on CPUs, by kind, in bytes. All values are f32.
//
//   weights      4 B a parameter that the rank holds: experts / expert ranks, table rows / data
//                ranks, blocks / stages
//   gradients    4 B a parameter but tables; a table keeps the rows that a step touches, 8 B of
//                row id and 4 B a value, once for each micro-batch
//   optimizer    AdamW: two moments, 8 B a parameter. Muon: one momentum, 4 B a parameter of the
//                backbone's matrices and experts. Tables: two moments and a step count, 8 B a
//                value and 4 B a row
//   activations  what one micro-batch keeps for backward: 4 B · b·S tokens times
//                  block    5 d (inputs and outputs of both norms, the sum between them)
//                  full     (2 heads + 2 kv_heads)·dim + heads
//                  mla      ranks and rope + 2 heads·(dim + rope + value) + heads
//                  nsa      heads·dim + 3 kv_heads·(dim + value) + 3 heads·(value + 2)
//                  dense    3 ffn
//                  experts  2 E + k·(2 d + 3 w) + 3 w·shared
//                  memory   2 d_mem + 4 M·d
//                  mHC      2 M·d a block, with M > 1
//                  model    4 d
//                and once the head's gradient V·d, which the loss forms in the forward pass, and a
//                chunk of logits. Of S pipeline stages, stage s holds min(accumulation, S − s)
//                micro-batches at once
//   dispatch     buffers of exchanges. With expert ranks 4 · b·S·k·d values: tokens to the experts
//                of a layer and back, sent and received. With data ranks, for every memory, row
//                ids and rows, sent and received
//
// An estimate: the pool's rounding, buffers inside the MPI library and the program itself come on
// top. It is that of the stage which needs most.

#include <cstdint>

#include "apps/train/config.h"
#include "parallel/mesh.h"

namespace fulcrum::apps {

struct RankMemory {
  std::int64_t weights = 0;
  std::int64_t gradients = 0;
  std::int64_t optimizer = 0;
  std::int64_t activations = 0;
  std::int64_t dispatch = 0;

  std::int64_t total() const { return weights + gradients + optimizer + activations + dispatch; }
};

// experiment.model must be solved (models/budget_solver.h).
RankMemory estimate_memory(const ExperimentConfig& experiment, const parallel::MeshShape& mesh);

}  // namespace fulcrum::apps
