#include "apps/plan/memory.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "apps/device_choice.h"
#include "apps/train/placement.h"
#include "framework/core/memory_pool.h"
#include "framework/ops/attention.h"
#include "framework/ops/gemm.h"
#include "models/parameter_list.h"

namespace fulcrum::apps {
namespace {

using models::CountedTensor;

constexpr std::int64_t kRowId = 8;      // bytes
constexpr std::int64_t kStepCount = 4;  // bytes of a table row
constexpr std::int64_t kBatch = 12;     // bytes of a token: its id, its target, its document

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct Stage {
  const ExperimentConfig& experiment;
  const parallel::MeshShape& mesh;
  parallel::BatchPlan batch;
  RowRange layers;
  bool first, last;
  std::int64_t in_flight;
  ElementBytes bytes;

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

  // Rows that one micro-batch reads of a table.
  std::int64_t read_rows() const {
    const auto& dse = *model().dse;
    return tokens() * static_cast<std::int64_t>(dse.orders.size()) * dse.heads;
  }
  // Without duplicates at best.
  std::int64_t touched_rows(std::int64_t table_rows) const {
    return std::min(table_rows, read_rows());
  }
};

// Gradients are summed over ranks in buckets, which close once they are large enough, and have one
// allocation each.
class Buckets {
 public:
  Buckets(double mib, Device device)
      : device_(device), limit_(static_cast<std::int64_t>(mib * (1 << 20))) {}
  void add(std::int64_t bytes) {
    open_ += bytes;
    if (open_ >= limit_) close();
  }
  std::int64_t total() {
    close();
    return total_;
  }

 private:
  void close() {
    if (open_ > 0) total_ += pooled_bytes(open_, device_);
    open_ = 0;
  }
  Device device_;
  std::int64_t limit_;
  std::int64_t open_ = 0;
  std::int64_t total_ = 0;
};

void add_table(const Stage& stage, std::int64_t rows, std::int64_t width, RankMemory& memory) {
  const ElementBytes& bytes = stage.bytes;
  const std::int64_t held = ceil_div(rows, stage.mesh.data());
  const std::int64_t touched = stage.touched_rows(rows);
  const std::int64_t exchanged =
      bytes.pooled(touched * width * bytes.vector) + bytes.pooled(touched * kRowId);
  memory.weights += bytes.pooled(held * width * bytes.vector);
  if (bytes.device.is_cuda() && stage.mesh.data() == 1) {
    // The table is read row by row, duplicates and all; of the merged gradient only the most that
    // its rows can be is known.
    const std::int64_t all = stage.batch.accumulation * stage.read_rows();
    memory.dispatch +=
        stage.batch.accumulation * bytes.pooled(stage.read_rows() * width * bytes.activation) +
        bytes.pooled(all * width * bytes.gradient) + bytes.pooled(all * kRowId);
  } else {
    memory.dispatch += stage.batch.accumulation * exchanged;
  }
  memory.optimizer +=
      bytes.pooled(2 * held * width * bytes.moment) + bytes.pooled(held * kStepCount);
  if (stage.mesh.data() > 1) memory.dispatch += 2 * exchanged;
}

// Returns what the rank saves of these.
std::int64_t add_parameters(const Stage& stage, RankMemory& memory) {
  const ElementBytes& bytes = stage.bytes;
  const ParallelConfig& config = stage.experiment.parallel;
  const OptimizerConfig& optimizer = stage.experiment.train.optimizer;
  const bool muon = optimizer.kind == OptimizerKind::muon;
  const bool zero = divides_optimizer(config.zero, bytes.device, stage.mesh);
  // Those of experts apart from others, those that ranks divide apart from those that all have.
  std::vector<Buckets> buckets(4, Buckets(config.bucket_mib, bytes.device));
  std::int64_t own = 0;     // saved by this rank alone
  std::int64_t shared = 0;  // that all ranks hold and divide when they save
  auto tensors = models::list_parameters(stage.model());
  for (auto tensor = tensors.rbegin(); tensor != tensors.rend(); ++tensor) {
    const ParameterKind kind = tensor->kind;
    if (!stage.owns(*tensor) || tensor->numel() == 0) continue;
    const std::int64_t rows = tensor->shape[0];
    const std::int64_t row = tensor->numel() / rows;
    if (kind == ParameterKind::table) {
      const std::int64_t before = memory.weights + memory.optimizer;
      add_table(stage, rows, row, memory);
      own += memory.weights + memory.optimizer - before;
      continue;
    }
    const bool expert = kind == ParameterKind::expert;
    const std::int64_t values = (expert ? ceil_div(rows, stage.mesh.expert) : rows) * row;
    const bool in_products = kind != ParameterKind::vector && kind != ParameterKind::router;
    const bool copied = in_products && bytes.master > 0;
    const bool divided = zero && in_products;
    const std::int64_t updated =
        divided ? ceil_div(values, expert ? stage.mesh.expert_data() : stage.mesh.data()) : values;
    const std::int64_t element = copied ? bytes.master : in_products ? bytes.matrix : bytes.vector;
    const std::int64_t master = bytes.pooled(updated * element);
    const bool one_moment = muon && (kind == ParameterKind::matrix || expert);
    const bool small = !one_moment && in_products && optimizer.moments == DType::bf16;
    const std::int64_t moment = small ? size_of(DType::bf16) : bytes.moment;
    const std::int64_t moments = (one_moment ? 1 : 2) * bytes.pooled(updated * moment);
    memory.weights +=
        copied ? master + bytes.pooled(values * bytes.matrix) : bytes.pooled(values * element);
    memory.optimizer += moments;
    buckets[2 * expert + divided].add(values * bytes.gradient);
    (divided || (expert && stage.mesh.expert > 1) ? own : shared) += master + moments;
  }
  for (Buckets& sort : buckets) memory.gradients += sort.total();
  return own + ceil_div(shared, stage.mesh.world);
}

// Of the gradients of scores that a deterministic backward keeps on a GPU.
std::int64_t score_bytes(const Stage& stage) {
  const auto& attention = stage.model().attention;
  const bool keeps = stage.bytes.device.is_cuda() && stage.bytes.activation == 2 &&
                     stage.experiment.train.deterministic &&
                     attention.kind == models::AttentionKind::full;
  if (!keeps) return 0;
  return std::min(ops::kMostScoreBytes,
                  2 * stage.tokens() * attention.heads * stage.experiment.train.sequence_length);
}

// Returns what validation takes.
std::int64_t add_activations(const Stage& stage, RankMemory& memory) {
  const auto& model = stage.model();
  if (stage.bytes.device.is_cuda()) memory.activations += ops::kMatmulWorkspaceBytes;
  std::int64_t kept = stage.bytes.pooled(stage.tokens() * kBatch);
  BlockMemory block;
  for (std::int64_t i = 0; i < stage.layers.count; ++i) {
    block = block_memory(model, stage.layers.first + i, stage.tokens(), score_bytes(stage),
                         stage.bytes, stage.experiment.train.recompute);
    kept += block.kept;
  }
  memory.activations += stage.in_flight * kept;
  LossMemory loss;
  if (stage.last)
    loss = loss_memory(model, stage.tokens(), stage.batch.accumulation > 1, stage.bytes);
  memory.activations += std::max(block.backward, loss.training);
  if (stage.mesh.expert > 1)
    memory.dispatch +=
        4 * stage.tokens() * model.moe.active() * model.width * stage.bytes.activation;
  return std::max(block.validation, loss.validation);
}

}  // namespace

ElementBytes element_bytes(DeviceChoice device, Precision precision) {
  ElementBytes bytes;
  bytes.device.kind = planned_device(device);
  const bool gpu = bytes.device.is_cuda();
  if (precision == Precision::f32 || (precision == Precision::automatic && !gpu)) return bytes;
  bytes.operand = 2;
  if (!gpu) return bytes;
  bytes.matrix = 2;
  bytes.master = 4;
  bytes.activation = 2;
  bytes.logit = 2;
  return bytes;
}

RankMemory estimate_memory(const ExperimentConfig& experiment, const parallel::MeshShape& mesh) {
  const auto& train = experiment.train;
  const auto batch = parallel::plan_batch(mesh, train.global_batch, train.micro_batch);
  const bool saves_beside_steps =
      experiment.checkpoint.every > 0 || experiment.checkpoint.every_minutes > 0;
  RankMemory most;
  for (std::int64_t s = 0; s < mesh.pipeline; ++s) {
    const Stage stage{experiment,
                      mesh,
                      batch,
                      parallel::shard(experiment.model.layers, mesh.pipeline, s),
                      s == 0,
                      s + 1 == mesh.pipeline,
                      std::min(batch.accumulation, mesh.pipeline - s),
                      element_bytes(experiment.device, train.precision)};
    RankMemory memory;
    const std::int64_t saved = add_parameters(stage, memory);
    const std::int64_t validation = add_activations(stage, memory);
    if (stage.bytes.device.is_cpu()) {
      memory.checkpoint = saves_beside_steps
                              ? saved
                              : std::max<std::int64_t>(0, saved + validation - memory.activations);
    }
    if (memory.total() > most.total()) most = memory;
  }
  return most;
}

}  // namespace fulcrum::apps
