#include "apps/bench/floor.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/train/placement.h"

namespace fulcrum::apps {
namespace {

models::StepShape shape_of(const ExperimentConfig& config, const parallel::Mesh& mesh,
                           ParameterStore::Placement placement, const StepTiming& timing) {
  const TrainConfig& train = config.train;
  const parallel::BatchPlan plan =
      parallel::plan_batch(mesh.shape(), train.global_batch, train.micro_batch);
  const bool cuda = placement.device.is_cuda();
  models::StepShape shape;
  shape.tokens = plan.micro_batch * train.sequence_length;
  shape.sequence_length = train.sequence_length;
  shape.micro_batches = plan.accumulation;
  shape.element = size_of(placement.dtype);
  shape.turns_in_place = cuda && placement.dtype == DType::bf16;
  shape.reads_in_place = cuda && mesh.data().alone();
  shape.recompute = train.recompute;
  if (divides_optimizer(config.parallel.zero, placement.device, mesh.shape())) {
    shape.optimizer_ranks = mesh.shape().data();
  }
  shape.moment = size_of(train.optimizer.moments);
  if (train.optimizer.kind == OptimizerKind::muon) {
    shape.newton_schulz = train.optimizer.muon.iterations;
  }
  shape.touched_rows = timing.touched_rows / static_cast<double>(mesh.shape().data());
  return shape;
}

std::string header() {
  return fmt::format("  {:<14} {:>10} {:>10} {:>10} {:>10} {:>10} {:>11}\n", "region, ms", "time",
                     "floor", "floor/time", "products", "memory", "above floor");
}

std::string line(const std::string& name, double seconds) {
  return fmt::format("  {:<14} {:>10.3f}", name, 1e3 * seconds);
}

std::string line(const std::string& name, double seconds, const Floor& floor) {
  return line(name, seconds) + fmt::format(" {:>10.3f} {:>8.0f} % {:>10.3f} {:>10.3f} {:>+11.3f}",
                                           1e3 * floor.seconds(), 100.0 * floor.seconds() / seconds,
                                           1e3 * floor.products, 1e3 * floor.memory,
                                           1e3 * (seconds - floor.seconds()));
}

}  // namespace

StepFloor step_floor(const ExperimentConfig& config, const parallel::Mesh& mesh,
                     ParameterStore::Placement placement, const StepTiming& timing,
                     const Ceilings& ceilings) {
  StepFloor floor;
  floor.work = models::step_work(config.model, shape_of(config, mesh, placement, timing));
  for (const models::OperatorWork& work : floor.work) {
    const double products = work.flops / ceilings.flops;
    const double memory = work.bytes / ceilings.bytes;
    Floor& region = floor.regions[name_of(work.region)];
    double Floor::*part = products > memory ? &Floor::products : &Floor::memory;
    region.*part += std::max(products, memory);
    floor.total.*part += std::max(products, memory);
  }
  return floor;
}

std::string floor_report(const StepTiming& timing, const StepFloor& floor,
                         const Ceilings& ceilings) {
  std::string report = header();
  for (const auto& [region, seconds] : timing.regions) {
    const auto at = floor.regions.find(region);
    report +=
        (at == floor.regions.end() ? line(region, seconds) : line(region, seconds, at->second)) +
        "\n";
  }
  return report + line("step", timing.seconds, floor.total) +
         fmt::format(
             "\n  floor = products + memory: an operator takes at least its matrix products at "
             "{:.4g} TFLOP/s or\n  its bytes at {:.4g} GB/s, whichever is longer; both rates were "
             "measured in this run\n",
             ceilings.flops / 1e12, ceilings.bytes / 1e9);
}

}  // namespace fulcrum::apps
