#pragma once
// Memory of one rank of a training run, by kind, in bytes of the pool: every request is rounded up
// to a size class (framework/core/memory_pool.h), as it is in a run.
//
//   weights      of the parameters that the rank holds: experts / expert ranks, table rows / data
//                ranks, blocks / stages
//   gradients    of all of these but tables, in reduction buckets
//   optimizer    AdamW: two moments, of 2 B with train.optimizer.moments bf16 for matrices,
//                experts, embedding and head. Muon: one momentum for the backbone's matrices and
//                experts. Tables: two moments and a step count, 4 B a row. With parallel.zero, data
//                ranks divide those of matrices, experts, embedding and head, and their f32 masters
//   activations  see activations.h. Of S pipeline stages, stage s holds min(accumulation, S − s)
//                micro-batches at once. On a GPU also what matrix products share
//                (ops::kMatmulWorkspaceBytes)
//   dispatch     buffers of exchanges. With expert ranks 4 · b·S·k·d values: tokens to the experts
//                of a layer and back, sent and received. For every memory the gradients of the rows
//                that a step touches, 8 B of row id and the values, once for each micro-batch; with
//                data ranks also row ids and rows, sent and received
//   checkpoint   copy of what the rank saves, written while steps go on beside it. A run that saves
//                only at its end has no step beside: then only what exceeds the activations counts.
//                From a GPU the copy goes to the host: none
//
// Values are f32 on CPUs; with train.precision bf16, products keep their inputs in bf16. On CUDA
// devices (device: cuda, or auto on a machine with a GPU) bf16, which auto means there, is that of
// activations and of copies of the matrices beside f32 masters; gradients stay f32, and moments
// unless train.optimizer.moments says otherwise. A run reports what it took (memory.peak of
// result.json); buffers inside the MPI library and the program itself come on top. Rows that
// n-grams share are counted as if they did not. The estimate is that of the stage which needs most.

#include <cstdint>

#include "apps/plan/activations.h"
#include "apps/train/config.h"
#include "parallel/mesh.h"

namespace fulcrum::apps {

struct RankMemory {
  std::int64_t weights = 0;
  std::int64_t gradients = 0;
  std::int64_t optimizer = 0;
  std::int64_t activations = 0;
  std::int64_t dispatch = 0;
  std::int64_t checkpoint = 0;

  std::int64_t total() const {
    return weights + gradients + optimizer + activations + dispatch + checkpoint;
  }
};

ElementBytes element_bytes(DeviceChoice device, Precision precision);

// experiment.model must be solved (models/budget_solver.h).
RankMemory estimate_memory(const ExperimentConfig& experiment, const parallel::MeshShape& mesh);

}  // namespace fulcrum::apps
