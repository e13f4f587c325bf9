#pragma once
// How the ranks of a job divide the work, and every rule about what must divide what.
//
//   world = pipeline × data,  data = expert × expert_data
//
// rank = (stage · expert_data + replica) · expert + expert_rank: the ranks of an expert group are
// neighbours, since they exchange most; the stages of a pipeline, which exchange least, lie
// farthest apart.
//
// Dense parameters are whole on every data rank of their stage; experts are divided over the expert
// group, tables over the data group. A gradient is summed over data() for dense parameters and over
// expert_data() for experts.

#include <cstdint>
#include <string>

#include "framework/nn/parameter.h"
#include "parallel/communicator.h"

namespace fulcrum::parallel {

// The index-th of `parts` even ranges of rows; when they do not divide, the first ranges have one
// row more.
RowRange shard(std::int64_t rows, std::int64_t parts, std::int64_t index);
// Which of these ranges holds a row.
std::int64_t shard_of(std::int64_t row, std::int64_t rows, std::int64_t parts);

// Sizes of a mesh, without ranks: what `plan` computes with.
struct MeshShape {
  std::int64_t world = 1;
  std::int64_t pipeline = 1;
  std::int64_t expert = 1;

  std::int64_t data() const { return world / pipeline; }
  std::int64_t expert_data() const { return data() / expert; }

  // Throws UserError when the factors are not positive or do not divide.
  void check() const;
  // Throws UserError unless every stage gets at least one of the layers.
  void check_layers(std::int64_t layers) const;
  // Throws UserError unless every expert rank gets as many experts as the others.
  void check_experts(std::int64_t experts) const;

  // "8 ranks = 2 pipeline × 4 data (2 expert)"
  std::string describe() const;
};

// How one optimizer step's sequences are cut: global_batch = data × micro_batch × accumulation.
struct BatchPlan {
  std::int64_t per_rank = 0;      // sequences a data rank computes in a step
  std::int64_t micro_batch = 0;   // sequences it computes at once
  std::int64_t accumulation = 0;  // micro-batches in a step
};
// micro_batch 0: all at once. Throws UserError when it does not divide.
BatchPlan plan_batch(const MeshShape& mesh, std::int64_t global_batch, std::int64_t micro_batch);

class Mesh {
 public:
  // Collective over world. Throws UserError when the factors do not divide.
  Mesh(const Communicator& world, std::int64_t pipeline, std::int64_t expert);
  // One rank, without MPI.
  Mesh() : Mesh(Communicator(), 1, 1) {}

  const MeshShape& shape() const { return shape_; }

  const Communicator& world() const { return world_; }
  // Ranks of the same stage.
  const Communicator& data() const { return data_; }
  // Ranks that together hold one copy of every expert of their stage.
  const Communicator& expert() const { return expert_; }
  // Ranks that hold the same experts.
  const Communicator& expert_data() const { return expert_data_; }
  // Ranks with the same place in their stages; its rank is the stage.
  const Communicator& pipeline() const { return pipeline_; }

  std::int64_t stage() const { return pipeline_.rank(); }
  bool first_stage() const { return stage() == 0; }
  bool last_stage() const { return stage() + 1 == shape_.pipeline; }
  // Layers of this stage.
  RowRange layers(std::int64_t layers) const;

  // Group over which the gradient of a dense or expert parameter is summed.
  const Communicator& gradient_group(ParameterKind kind) const {
    return kind == ParameterKind::expert ? expert_data_ : data_;
  }
  // Rows of each parameter that this rank holds.
  ParameterStore::ShardPolicy shard_policy() const;

 private:
  MeshShape shape_;
  Communicator world_, data_, expert_, expert_data_, pipeline_;
};

}  // namespace fulcrum::parallel
