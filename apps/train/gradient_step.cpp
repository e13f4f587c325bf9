#include "apps/train/gradient_step.h"

#include <cmath>
#include <numeric>

#include "framework/autograd/tape.h"
#include "framework/core/memory_pool.h"
#include "framework/core/region.h"
#include "framework/ops/scalars.h"
#include "framework/ops/table.h"
#include "framework/optim/clipping.h"

namespace fulcrum::apps {
namespace {

using telemetry::Phase;

// Steps before the capture: libraries make their handles and plans in them.
constexpr std::int64_t kEagerSteps = 2;

// Parameters of whose complete gradient this rank has a part of its own (tables, and what ranks
// divide for the optimizer), or the others, whose gradients are equal on all ranks.
std::vector<Parameter*> parameters_of(const TrainingState& state, bool local) {
  std::vector<Parameter*> chosen;
  for (const auto& parameter : state.store.parameters()) {
    const bool is_local =
        parameter->kind == ParameterKind::table || state.sharding.divides(*parameter);
    if (is_local == local) chosen.push_back(parameter.get());
  }
  return chosen;
}

double sum_of(const double* values, std::size_t count) {
  return std::accumulate(values, values + count, 0.0);
}

}  // namespace

std::vector<Tensor> GradientStep::Readings::all() const {
  std::vector<Tensor> list;
  for (const auto* part : {&nll, &loss, &gates, &touched_rows, &dropped_slots, &square_sums}) {
    list.insert(list.end(), part->begin(), part->end());
  }
  return list;
}

GradientStep::GradientStep(const ExperimentConfig& config, const parallel::Mesh& mesh,
                           TrainingState& state, telemetry::StepTimer& timer)
    : config_(config), mesh_(mesh), state_(state), timer_(timer), regions_(state.store.device()) {}

void GradientStep::start(const std::vector<data::Batch>& micro_batches) {
  const Device device = state_.store.device();
  while (inputs_.size() < micro_batches.size()) {
    inputs_.push_back({Upload(device), Upload(device), Upload(device), {}, {}});
  }
  for (std::size_t j = 0; j < micro_batches.size(); ++j) {
    Input& input = inputs_[j];
    const data::Batch& host = micro_batches[j];
    input.host = host;
    input.batch = {input.ids(host.ids), input.targets(host.targets),
                   input.document_start(host.document_start)};
  }
  const bool shared_tables = config_.model.dse && !mesh_.data().alone();
  if (!config_.train.cuda_graph || device.is_cpu() || shared_tables) return compute();
  if (graph_.captured()) return graph_.replay();
  if (eager_steps_++ < kEagerSteps) return compute();
  scalars_ = {};
  readings_ = {};
  release_cached_memory(device);  // the graph's memory is its own
  graph_.capture([this] { compute(); });
  graph_.replay();
}

void GradientStep::compute() {
  regions_.begin();
  for (models::MoeFeedForward* moe : state_.model.mixtures()) moe->begin_step();
  state_.reducer.begin_step();
  const std::int64_t step_tokens = config_.train.global_batch * config_.train.sequence_length;
  Readings readings;
  for (std::size_t j = 0; j < inputs_.size(); ++j) {
    models::ForwardPass pass{inputs_[j].batch};
    pass.host_batch = &inputs_[j].host;
    pass.data_ranks = &mesh_.data();
    pass.global_tokens = pass.batch.ids.numel() * mesh_.data().size();
    pass.token_weight = 1.0 / static_cast<double>(step_tokens);
    pass.recompute = config_.train.recompute;
    Tape tape;
    models::Loss loss;
    {
      const auto timed = timer_.time(Phase::forward);
      const Tape::Scope recording(tape);
      loss = state_.model.loss(pass, config_.train.z_loss);
    }
    {
      const auto timed = timer_.time(Phase::backward);
      if (j + 1 == inputs_.size()) state_.reducer.arm();
      tape.backward(loss.total);
    }
    readings.nll.push_back(loss.nll_sum);
    readings.loss.push_back(loss.total.detach());
    for (const Tensor& gate : pass.gate_means) readings.gates.push_back(gate.detach());
    for (const Tensor& slots : pass.dropped_slots) readings.dropped_slots.push_back(slots);
  }
  const auto timed = timer_.time(Phase::reduce);
  {
    const InRegion region(Region::communication);
    state_.model.finish_step();
    state_.reducer.finish();
  }
  for (const bool local : {true, false}) {
    const InRegion region(Region::optimizer);
    readings.square_sums.push_back(
        gradient_square_sum(parameters_of(state_, local), state_.store.device()));
  }
  for (const auto& parameter : state_.store.parameters()) {
    if (parameter->kind != ParameterKind::table) continue;
    // The sum of squares has merged it.
    readings.touched_rows.push_back(
        ops::merged_count(parameter->slot().sparse, parameter->value.device()));
  }
  readings_ = readings;
  scalars_ = ops::pack_scalars(readings.all());
  expert_load_ = stacked_expert_load();
  regions_.end();
}

StepReport GradientStep::finish(int signal) {
  const auto timed = timer_.time(Phase::reduce);
  const Tensor scalars = scalars_.to(Device{});
  const double* next = scalars.data<double>();
  const auto sum_part = [&](const std::vector<Tensor>& part) {
    const double sum = sum_of(next, part.size());
    next += part.size();
    return sum;
  };
  double sums[] = {sum_part(readings_.nll),           sum_part(readings_.loss),
                   sum_part(readings_.gates),         sum_part(readings_.touched_rows),
                   sum_part(readings_.dropped_slots), next[0],
                   static_cast<double>(signal)};
  const double replicated_square_sum = next[1];
  mesh_.world().all_reduce(std::span<double>(sums));
  StepReport report;
  report.loss =
      sums[0] / static_cast<double>(config_.train.global_batch * config_.train.sequence_length);
  report.total_loss = sums[1];
  if (!readings_.gates.empty()) {
    report.gate_mean =
        sums[2] / (static_cast<double>(readings_.gates.size()) * mesh_.world().size());
  }
  report.touched_rows = sums[3];
  report.dropped_slots = sums[4];
  report.gradient_norm = std::sqrt(replicated_square_sum + sums[5]);
  report.signal = static_cast<int>(sums[6]);
  if (expert_load_.defined()) {
    report.expert_load = expert_load_.to(Device{});
    mesh_.data().all_reduce(report.expert_load);
  }
  return report;
}

Tensor GradientStep::stacked_expert_load() const {
  const auto& mixtures = state_.model.mixtures();
  if (mixtures.empty()) return {};
  const auto count = static_cast<std::int64_t>(mixtures.size());
  const Tensor load =
      Tensor::empty({count, mixtures.front()->experts()}, DType::i64, state_.store.device());
  for (std::int64_t i = 0; i < count; ++i) load.slice(i, i + 1).copy_from(mixtures[i]->load());
  return load;
}

}  // namespace fulcrum::apps
