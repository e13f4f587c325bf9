#pragma once
// Memory of one rank of a training run on CPUs, by kind, in bytes. All values are f32.
//
//   weights      4 B a parameter that the rank holds: experts / expert ranks, table rows / data
//   ranks, blocks / stages gradients    4 B a parameter but tables; a table keeps the rows that a
//   step touches, 8 B of row id and 4 B a value,
//                once for each micro-batch
//   optimizer    AdamW: two moments, 8 B a parameter. Muon: one momentum, 4 B a parameter of the
//   matrices and experts.
//                Tables: two moments and a step count, 8 B a value and 8 B a row
//   activations  what one micro-batch keeps for backward, b·S tokens of 4 B times
//     block        5 d: block input, both norms' outputs and inputs
//     attention    full: (2 heads + 2 kv_heads)·dim + heads. mla: the ranks, 2 heads·(dim + rope) +
//     2 heads·value + heads.
//                  nsa: heads·dim + 3 kv_heads·(dim + value) + 3 heads·(value + 2)
//     dense        3 ffn
//     experts      2 E + k·(2 d + 3 w) + 3 w·shared
//     memory       2 d_mem + 4 d·M
//     M > 1 hyper-connections keep 2 M·d more a block
//     model        4 d, and once: the head's gradient V·d, made in the forward pass, and a chunk of
//     logits
//                With pipeline stages, stage s holds min(accumulation, stages − s) micro-batches at
//                once.
//   dispatch     buffers of exchanges, for one layer of a kind at a time: tokens to experts and
//   back, 4 · b·S·k·d values, when
//                there are expert ranks; row ids and rows of every memory, sent and received, when
//                there are data ranks
//
// Estimates: the pool's rounding, communication inside the MPI library and the program itself come
// on top. The rank of the stage that needs most is shown.

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
