#include "apps/plan/memory.h"

#include <algorithm>
#include <charconv>

#include "models/budget.h"

namespace fulcrum::apps {
namespace {

using models::AttentionKind;
using models::CountedTensor;

constexpr std::int64_t kValue = 4;      // bytes
constexpr std::int64_t kRowId = 8;      // bytes
constexpr std::int64_t kStepCount = 4;  // bytes of a table row
constexpr std::int64_t kLogitsChunk = std::int64_t{8} << 20;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct Stage {
  const ExperimentConfig& experiment;
  const parallel::MeshShape& mesh;
  parallel::BatchPlan batch;
  RowRange layers;
  bool first, last;
  std::int64_t in_flight;

  const models::ModelConfig& model() const { return experiment.model; }
  std::int64_t tokens() const { return batch.micro_batch * experiment.train.sequence_length; }

  bool owns(const CountedTensor& tensor) const {
    constexpr std::string_view kBlocks = "blocks.";
    if (tensor.name.rfind(kBlocks, 0) != 0) {
      // A tied embedding is also the head.
      return tensor.part == models::Part::embedding ? first || (last && model().tie_embeddings)
                                                    : last;
    }
    std::int64_t layer = 0;
    std::from_chars(tensor.name.data() + kBlocks.size(), tensor.name.data() + tensor.name.size(),
                    layer);
    return layer >= layers.first && layer < layers.first + layers.count;
  }

  // Rows of one micro-batch, without duplicates at best.
  std::int64_t touched_rows(std::int64_t table_rows) const {
    const auto& dse = *model().dse;
    return std::min(table_rows,
                    tokens() * static_cast<std::int64_t>(dse.orders.size()) * dse.heads);
  }
};

void add_parameters(const Stage& stage, RankMemory& memory) {
  const bool muon = stage.experiment.train.optimizer.kind == OptimizerKind::muon;
  for (const auto& tensor : models::list_parameters(stage.model())) {
    if (!stage.owns(tensor)) continue;
    const std::int64_t rows = tensor.shape[0];
    const std::int64_t row = rows == 0 ? 0 : tensor.numel() / rows;
    std::int64_t held = rows;
    if (tensor.kind == ParameterKind::expert) held = ceil_div(rows, stage.mesh.expert);
    if (tensor.kind == ParameterKind::table) held = ceil_div(rows, stage.mesh.data());
    memory.weights += held * row * kValue;
    if (tensor.kind == ParameterKind::table) {
      const std::int64_t touched = stage.touched_rows(rows);
      memory.gradients += stage.batch.accumulation * touched * (row * kValue + kRowId);
      memory.optimizer += held * (2 * row * kValue + kStepCount);
      if (stage.mesh.data() > 1) memory.dispatch += 2 * touched * (row * kValue + kRowId);
    } else {
      const bool one_moment =
          muon && (tensor.kind == ParameterKind::matrix || tensor.kind == ParameterKind::expert);
      memory.gradients += held * row * kValue;
      memory.optimizer += held * row * kValue * (one_moment ? 1 : 2);
    }
  }
}

std::int64_t attention_values(const models::AttentionConfig& a) {
  switch (a.kind) {
    case AttentionKind::full:
      return (2 * a.heads + 2 * a.kv_heads) * a.head_dim + a.heads;
    case AttentionKind::mla:
      return a.mla.query_rank + a.mla.kv_rank + a.mla.rope_dim +
             2 * a.heads * (a.head_dim + a.mla.rope_dim + a.mla.value_dim) + a.heads;
    case AttentionKind::nsa:
      return a.heads * a.head_dim + 3 * a.kv_heads * (a.head_dim + a.nsa.value_dim) +
             3 * a.heads * (a.nsa.value_dim + 2);
  }
  return 0;
}

std::int64_t block_values(const models::ModelConfig& model, std::int64_t layer) {
  const std::int64_t d = model.width;
  const std::int64_t streams = model.hyper_connections;
  std::int64_t values = 5 * d + attention_values(model.attention);
  if (streams > 1) values += 2 * streams * d;
  const auto& moe = model.moe;
  if (moe.experts > 0 && layer >= moe.leading_dense) {
    values += 2 * moe.routed() + moe.active() * (2 * d + 3 * moe.width()) +
              3 * moe.width() * moe.shared_experts;
  } else {
    values += 3 * model.ffn_width;
  }
  if (model.dse) {
    const auto& owners = model.dse->layers;
    if (std::find(owners.begin(), owners.end(), layer) != owners.end())
      values += 2 * model.dse->width + 4 * d * streams;
  }
  return values;
}

void add_activations(const Stage& stage, RankMemory& memory) {
  const auto& model = stage.model();
  std::int64_t values = 0;
  for (std::int64_t i = 0; i < stage.layers.count; ++i)
    values += block_values(model, stage.layers.first + i);
  if (stage.last) values += 4 * model.width;
  memory.activations += stage.in_flight * stage.tokens() * values * kValue;
  if (stage.last) memory.activations += model.vocabulary * model.width * kValue + kLogitsChunk;
  if (stage.mesh.expert > 1)
    memory.dispatch += 4 * stage.tokens() * model.moe.active() * model.width * kValue;
}

}  // namespace

RankMemory estimate_memory(const ExperimentConfig& experiment, const parallel::MeshShape& mesh) {
  const auto& train = experiment.train;
  const auto batch = parallel::plan_batch(mesh, train.global_batch, train.micro_batch);
  RankMemory most;
  for (std::int64_t s = 0; s < mesh.pipeline; ++s) {
    const Stage stage{experiment,
                      mesh,
                      batch,
                      parallel::shard(experiment.model.layers, mesh.pipeline, s),
                      s == 0,
                      s + 1 == mesh.pipeline,
                      std::min(batch.accumulation, mesh.pipeline - s)};
    RankMemory memory;
    add_parameters(stage, memory);
    add_activations(stage, memory);
    if (memory.total() > most.total()) most = memory;
  }
  return most;
}

}  // namespace fulcrum::apps
