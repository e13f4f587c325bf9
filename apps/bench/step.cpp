#include "apps/bench/step.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "apps/bench/inputs.h"
#include "apps/train/gradient_step.h"
#include "apps/train/training_state.h"
#include "framework/core/cuda_memory.h"
#include "framework/core/memory_pool.h"
#include "framework/optim/clipping.h"
#include "models/budget.h"

namespace fulcrum::apps {
namespace {

constexpr std::int64_t kWarmup = 4;  // the third captures the graph

models::HashedVocabulary identity(const ExperimentConfig& config) {
  if (!config.model.dse) return {};
  std::vector<std::int32_t> map(static_cast<std::size_t>(config.model.vocabulary));
  std::iota(map.begin(), map.end(), 0);
  return {Tensor::from(map, {config.model.vocabulary}), config.model.vocabulary, 0};
}

std::vector<data::Batch> random_batches(const ExperimentConfig& config,
                                        const parallel::BatchPlan& plan, std::uint64_t seed) {
  std::vector<data::Batch> batches;
  const Shape shape = {plan.micro_batch, config.train.sequence_length};
  for (std::int64_t j = 0; j < plan.accumulation; ++j) {
    const std::uint64_t s = seed * 1000 + static_cast<std::uint64_t>(j);
    batches.push_back({random_ids(shape, config.model.vocabulary, {}, 2 * s),
                       random_ids(shape, config.model.vocabulary, {}, 2 * s + 1),
                       Tensor::zeros(shape, DType::i32)});
  }
  return batches;
}

}  // namespace

StepTiming time_steps(const ExperimentConfig& config, const parallel::Mesh& mesh,
                      ParameterStore::Placement placement, std::int64_t steps) {
  const parallel::BatchPlan plan =
      parallel::plan_batch(mesh.shape(), config.train.global_batch, config.train.micro_batch);
  TrainingState state(config, identity(config), mesh, placement);
  telemetry::StepTimer timer;
  GradientStep gradients(config, mesh, state, timer);
  struct Step {
    double seconds;
    telemetry::RegionTimer::Seconds regions;
  };
  std::vector<Step> timed;
  StepTiming timing;
  telemetry::RegionTimer optimizer_timer(placement.device);
  for (std::int64_t step = 0; step < kWarmup + steps; ++step) {
    const std::vector<data::Batch> batches = random_batches(
        config, plan, static_cast<std::uint64_t>(step * mesh.data().size() + mesh.data().rank()));
    if (placement.device.is_cuda()) {
      // As in training, where it happens while the GPU computes the step before.
      for (const data::Batch& batch : batches) state.model.announce(batch);
      cuda_synchronize();
    }
    const auto start = std::chrono::steady_clock::now();
    gradients.start(batches);
    const StepReport report = gradients.finish(0);
    {
      const double scale = clip_factor(report.gradient_norm * report.gradient_norm,
                                       config.train.optimizer.clip_norm);
      optimizer_timer.begin();
      state.update(config.train.optimizer.lr, scale);
      optimizer_timer.end();
      if (placement.device.is_cuda()) cuda_synchronize();
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    if (step >= kWarmup) {
      timing.touched_rows += report.touched_rows / static_cast<double>(steps);
      Step& now = timed.emplace_back(Step{elapsed.count(), gradients.region_seconds()});
      const auto update = optimizer_timer.seconds();
      for (std::size_t i = 0; i < update.size(); ++i) now.regions[i] += update[i];
    }
    timing.loss = report.loss;
  }
  const auto median = timed.begin() + static_cast<std::ptrdiff_t>(timed.size() / 2);
  std::nth_element(timed.begin(), median, timed.end(),
                   [](const Step& a, const Step& b) { return a.seconds < b.seconds; });
  timing.seconds = median->seconds;
  const auto tokens = static_cast<double>(config.train.global_batch * config.train.sequence_length);
  timing.tokens_per_second = tokens / timing.seconds;
  timing.flops = models::flops_per_token(config.model, config.train.sequence_length) *
                 timing.tokens_per_second / static_cast<double>(mesh.world().size());
  timing.peak_gib =
      static_cast<double>(memory_stats(placement.device).peak) / (1024.0 * 1024.0 * 1024.0);
  double busy = 0.0;
  for (int i = 0; i < kRegions; ++i) {
    const double part = median->regions[static_cast<std::size_t>(i)];
    if (part > 0.0) timing.regions[name_of(static_cast<Region>(i))] = part;
    busy += part;
  }
  timing.regions["idle"] = std::max(timing.seconds - busy, 0.0);
  return timing;
}

}  // namespace fulcrum::apps
