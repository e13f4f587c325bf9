#pragma once
// Sums gradients over the ranks while backward still computes the next ones.
//
//   GradientReducer reducer(store, mesh, 16.0, &sharding);
//   each step:
//     reducer.begin_step();
//     each micro-batch:
//       forward
//       if (last micro-batch) reducer.arm();
//       tape.backward(loss)
//     reducer.finish();            // every dense gradient is the sum over all ranks and
//                                  // micro-batches, in the rows that this rank's masters hold
//
// The gradients of dense parameters are views of flat buckets, filled in reverse order of creation,
// which is about the order in which backward completes them. In the armed backward a bucket is sent
// as soon as its last parameter is complete (GradSlot::on_complete) and its predecessors have been
// sent: all ranks send buckets in the same order, whatever order their gradients complete in. Dense
// parameters are summed over mesh.data(), experts over mesh.expert_data(); tables are not touched,
// their owners sum them (parallel/row_exchange.h). Sums, not means: scale the loss by the global
// number of tokens. Parameters that ranks divide (parallel/optimizer_sharding.h) have buckets of
// their own, which are scattered instead of summed everywhere: outside the rows of its masters a
// rank's gradient is then of no use.
//
// A parameter that got no gradient has a gradient of zeros after finish. Same mesh, same bits; the
// size of the buckets does not matter (parallel/communicator.h; on a GPU it does from 3 ranks on).
// With one rank nothing is sent. On a GPU finish makes the compute stream wait, not the host; a
// step may be captured in a CUDA graph once one has run.

#include <cstdint>
#include <vector>

#include "framework/nn/parameter.h"
#include "parallel/mesh.h"
#include "parallel/optimizer_sharding.h"
#include "parallel/request.h"

namespace fulcrum::parallel {

class GradientReducer {
 public:
  // Binds the gradients; the store must keep its parameters and outlive this. Collective over the
  // mesh. bucket_mib > 0: a bucket takes parameters until it is at least this large. sharding:
  // null when no parameter is divided; it must outlive this.
  GradientReducer(const ParameterStore& store, const Mesh& mesh, double bucket_mib,
                  const OptimizerSharding* sharding = nullptr);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  // Next contributions overwrite the gradients of the whole store.
  void begin_step();
  // Before the backward in which gradients become complete.
  void arm();
  // Sends what was not sent yet and waits for all sums. Works without arm, too: then nothing
  // overlaps.
  void finish();

  std::size_t buckets() const { return buckets_.size(); }
  // Bytes that this rank's gradients fill in the buckets.
  std::int64_t bytes() const;
  // Time the host waited for sums in the last finish: on a CPU, communication that backward did not
  // hide.
  double exposed_seconds() const { return exposed_seconds_; }

 private:
  struct Bucket {
    const Communicator* group;
    Tensor flat;
    std::vector<const Parameter*> parameters;
    std::vector<RankRows> divided;  // their gradients, when ranks divide them
    std::size_t incomplete = 0;
    Request request;
  };

  void close(const std::vector<const Parameter*>& parameters);
  void complete(std::size_t parameter);
  void send_complete();
  void send(Bucket& bucket);

  const ParameterStore& store_;
  const OptimizerSharding* sharding_;
  Communicator dense_group_, expert_group_;
  std::vector<Bucket> buckets_;  // in the order in which they are sent
  struct Place {
    const Parameter* parameter;
    std::size_t bucket;
    bool complete;
  };
  std::vector<Place> places_;
  std::size_t next_ = 0;  // bucket to be sent next
  bool armed_ = false;
  double exposed_seconds_ = 0.0;
};

}  // namespace fulcrum::parallel
