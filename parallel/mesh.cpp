#include "parallel/mesh.h"

#include <algorithm>

namespace fulcrum::parallel {

RowRange shard(std::int64_t rows, std::int64_t parts, std::int64_t index) {
  FULCRUM_CHECK(rows >= 0 && 0 <= index && index < parts, "shard {} of {}, {} rows", index, parts,
                rows);
  const std::int64_t each = rows / parts;
  const std::int64_t extra = rows % parts;
  return {index * each + std::min(index, extra), each + (index < extra ? 1 : 0)};
}

std::int64_t shard_of(std::int64_t row, std::int64_t rows, std::int64_t parts) {
  FULCRUM_CHECK(0 <= row && row < rows, "row {} of {}", row, rows);
  const std::int64_t each = rows / parts;
  const std::int64_t longer = rows % parts * (each + 1);  // rows in the ranges that have one more
  return row < longer ? row / (each + 1) : rows % parts + (row - longer) / each;
}

void MeshShape::check() const {
  const auto positive = [](const char* key, std::int64_t value) {
    if (value < 1) throw UserError(fmt::format("{} must be at least 1; got {}", key, value));
  };
  positive("number of ranks", world);
  positive("parallel.pipeline", pipeline);
  positive("parallel.expert", expert);
  if (world % pipeline != 0) {
    throw UserError(
        fmt::format("{} ranks do not divide into parallel.pipeline = {} stages: the number of "
                    "ranks (mpirun -n) must be "
                    "pipeline × data",
                    world, pipeline));
  }
  if (data() % expert != 0) {
    throw UserError(
        fmt::format("parallel.expert = {} does not divide the {} data ranks ({} ranks / "
                    "parallel.pipeline = {}): "
                    "experts are spread within the data ranks of a stage",
                    expert, data(), world, pipeline));
  }
}

void MeshShape::check_layers(std::int64_t layers) const {
  if (layers < pipeline) {
    throw UserError(
        fmt::format("parallel.pipeline = {} stages need at least as many layers; model.layers = {}",
                    pipeline, layers));
  }
}

void MeshShape::check_experts(std::int64_t experts) const {
  if (experts % expert != 0) {
    throw UserError(fmt::format(
        "parallel.expert = {} does not divide the {} routed experts of a layer", expert, experts));
  }
}

std::string MeshShape::describe() const {
  if (world == 1) return "1 rank";
  return fmt::format("{} ranks = {} pipeline × {} data ({} expert)", world, pipeline, data(),
                     expert);
}

BatchPlan plan_batch(const MeshShape& mesh, std::int64_t global_batch, std::int64_t micro_batch) {
  if (global_batch < 1 || global_batch % mesh.data() != 0) {
    throw UserError(fmt::format("train.global_batch = {} does not divide by the {} data ranks ({})",
                                global_batch, mesh.data(), mesh.describe()));
  }
  BatchPlan plan;
  plan.per_rank = global_batch / mesh.data();
  plan.micro_batch = micro_batch == 0 ? plan.per_rank : micro_batch;
  if (plan.micro_batch < 1 || plan.per_rank % plan.micro_batch != 0) {
    throw UserError(
        fmt::format("train.micro_batch = {} does not divide the {} sequences of a rank "
                    "(train.global_batch = {} / {} data ranks)",
                    micro_batch, plan.per_rank, global_batch, mesh.data()));
  }
  plan.accumulation = plan.per_rank / plan.micro_batch;
  return plan;
}

Mesh::Mesh(const Communicator& world, std::int64_t pipeline, std::int64_t expert)
    : shape_{world.size(), pipeline, expert}, world_(world) {
  shape_.check();
  const auto data = static_cast<int>(shape_.data());
  const int stage = world.rank() / data;
  const int place = world.rank() % data;
  data_ = world.split(stage, place, "data");
  pipeline_ = world.split(place, stage, "pipeline");
  expert_ = data_.split(place / static_cast<int>(expert), place, "expert");
  expert_data_ = data_.split(place % static_cast<int>(expert), place, "expert data");
}

RowRange Mesh::layers(std::int64_t layers) const {
  shape_.check_layers(layers);
  return shard(layers, shape_.pipeline, stage());
}

ParameterStore::ShardPolicy Mesh::shard_policy() const {
  return [data = data_, expert = expert_](ParameterKind kind, std::int64_t rows) -> RowRange {
    switch (kind) {
      case ParameterKind::table:
        return shard(rows, data.size(), data.rank());
      case ParameterKind::expert:
        return shard(rows, expert.size(), expert.rank());
      default:
        return {0, rows};
    }
  };
}

}  // namespace fulcrum::parallel
