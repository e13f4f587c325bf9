#pragma once
// Data ranks divide the optimizer's work (ZeRO, arXiv 1910.02054, stage 1).
//
//   OptimizerSharding sharding(store, mesh, options);       // before reducer and optimizers
//   GradientReducer reducer(store, mesh, bucket_mib, &sharding);
//   each step, after reducer.finish():
//     each optimizer:
//       optimizer.step(…);                                  // the rows of this rank's masters
//       sharding.gather(optimizer.parameters());            // starts to send them round
//     sharding.finish();                                    // before values are read
//
// The ranks of a parameter's gradient group (parallel/mesh.h) divide its rows: gradients are
// complete, and masters and the optimizer's state exist, only in the rows Parameter::master_rows of
// a rank; values are whole on all. For a value of 2 bytes with master and two moments of 4 a rank
// of p then holds 2 + 12 / p bytes of a parameter beside its gradient, and sends (p − 1) / p · (4 +
// 2) of each instead of 2 (p − 1) / p · 4.
//
// Divided are matrices, experts, embedding and head, into even ranges of rows; vectors, routers and
// tables are not. Muon needs matrices whole: then each matrix that is not stacked belongs to one
// rank, so that every rank has about the same to orthogonalise, while experts, matrices of their
// own, are divided. The same holds where values are their own masters (f32): the master is then a
// part of the value.

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "framework/nn/parameter.h"
#include "parallel/mesh.h"
#include "parallel/request.h"

namespace fulcrum::parallel {

struct OptimizerShardingOptions {
  bool divide = false;          // else nothing is divided
  bool whole_matrices = false;  // matrices go to ranks as wholes
};

class OptimizerSharding {
 public:
  // Cuts the masters; the store must keep its parameters and outlive this. Collective.
  OptimizerSharding(const ParameterStore& store, const Mesh& mesh,
                    const OptimizerShardingOptions& options);
  ~OptimizerSharding() = default;
  OptimizerSharding(const OptimizerSharding&) = delete;
  OptimizerSharding& operator=(const OptimizerSharding&) = delete;

  // Rows of each rank of the gradient group, in rank order; null when every rank has all of them.
  const std::vector<std::int64_t>* rows(const Parameter& parameter) const;
  bool divides(const Parameter& parameter) const { return rows(parameter) != nullptr; }

  // Starts to send this rank's rows of these parameters' values to the others and to receive
  // theirs. Collective.
  void gather(const std::vector<Parameter*>& parameters);
  // Until all gathered values are whole: on a GPU the compute stream waits, not the host.
  void finish();

 private:
  Communicator dense_group_, expert_group_;
  std::unordered_map<const Parameter*, std::vector<std::int64_t>> rows_;
  std::vector<Request> requests_;
};

}  // namespace fulcrum::parallel
