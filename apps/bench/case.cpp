#include "apps/bench/case.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <list>

#include "apps/bench/inputs.h"
#include "framework/autograd/tape.h"
#include "framework/core/cuda_graph.h"
#include "framework/core/cuda_memory.h"
#include "framework/core/memory_pool.h"
#include "framework/core/stopwatch.h"
#include "framework/ops/matmul.h"

namespace fulcrum::apps {
namespace {

constexpr int kWarmup = 5;
constexpr int kRepeats = 25;
// A graph takes about 3 µs to start, which a training step pays once: short work is timed as a
// graph that does it several times.
constexpr double kGraphSeconds = 4e-4;
constexpr double kMostTimes = 8;

std::vector<Tensor> plain(const std::vector<BenchInput>& inputs) {
  std::vector<Tensor> values;
  for (const BenchInput& input : inputs) values.push_back(input.value);
  return values;
}

// The inputs with gradient slots, as they have them inside a model.
std::vector<Tensor> differentiable(const std::vector<BenchInput>& inputs) {
  std::vector<Tensor> values;
  for (const BenchInput& input : inputs) {
    Tensor x = input.value.detach();
    if (input.kind == BenchInput::Kind::parameter) x = make_leaf(x);
    if (input.kind == BenchInput::Kind::activation) x.set_slot(std::make_shared<GradSlot>());
    values.push_back(x);
  }
  return values;
}

// A recorded forward pass, ready to go backwards once.
struct Recorded {
  Tape tape;
  std::vector<Tensor> inputs, outputs, seeds;

  explicit Recorded(const BenchCase& bench) : inputs(differentiable(bench.inputs)) {
    const Tape::Scope recording(tape);
    for (const Tensor& output : bench.forward(inputs)) {
      if (!output.requires_grad()) continue;
      outputs.push_back(output);
      // constants would run faster than real gradients
      seeds.push_back(random_values(output.shape(), output.dtype(), output.device(), 99));
    }
  }
  void backward() { tape.backward(outputs, seeds); }
};

// Seconds of a graph of all the works.
double time_graph(Device device, const std::vector<std::function<void()>>& works) {
  release_cached_memory(device);  // of the graph before, too
  CudaGraph graph;
  graph.capture([&] {
    for (const auto& work : works) work();
  });
  return median_seconds(device, kWarmup, kRepeats, [&] { graph.replay(); });
}

// Seconds of one work, of which `make` gives as many as are asked for.
double time_in_graph(Device device,
                     const std::function<std::vector<std::function<void()>>(std::size_t)>& make) {
  const double once = time_graph(device, make(1));
  const auto times =
      static_cast<std::size_t>(std::min(std::ceil(kGraphSeconds / once), kMostTimes));
  if (times == 1) return once;
  return time_graph(device, make(times)) / static_cast<double>(times);
}

double time_forward(const BenchCase& bench, Device device) {
  const std::vector<Tensor> inputs = plain(bench.inputs);
  const auto work = [&] { bench.forward(inputs); };
  if (device.is_cpu()) return median_seconds(device, kWarmup, kRepeats, work);
  work();
  return time_in_graph(
      device, [&](std::size_t times) { return std::vector<std::function<void()>>(times, work); });
}

double time_backward(const BenchCase& bench, Device device, double forward) {
  if (device.is_cpu()) {
    const double both =
        median_seconds(device, kWarmup, kRepeats, [&] { Recorded(bench).backward(); });
    return both - forward;
  }
  Recorded(bench).backward();
  std::list<Recorded> passes;
  return time_in_graph(device, [&](std::size_t times) {
    passes.clear();
    std::vector<std::function<void()>> works;
    for (std::size_t i = 0; i < times; ++i) {
      works.push_back([&pass = passes.emplace_back(bench)] { pass.backward(); });
    }
    return works;
  });
}

BenchResult result_of(const BenchCase& bench, const char* direction, const Work& work,
                      double seconds, const Ceilings& ceilings) {
  return {bench.name + direction, bench.shape, seconds, work,
          std::max(work.flops / ceilings.flops, work.bytes / ceilings.bytes)};
}

}  // namespace

Ceilings measure_ceilings(Device device, DType dtype) {
  Ceilings ceilings;
  const std::int64_t n = device.is_cpu() ? 1024 : 8192;
  const Tensor a = random_values({n, n}, dtype, device, 1);
  const double product =
      median_seconds(device, kWarmup, kRepeats, [&] { ops::matmul(a, a, false, true); });
  ceilings.flops = 2.0 * static_cast<double>(n * n) * static_cast<double>(n) / product;
  const std::int64_t bytes = device.is_cpu() ? std::int64_t{128} << 20 : std::int64_t{2} << 30;
  const Tensor from = Tensor::full({bytes / 4}, 1.0, DType::f32, device);
  const Tensor to = Tensor::empty_like(from);
  const double copy = median_seconds(device, kWarmup, kRepeats, [&] { to.copy_from(from); });
  ceilings.bytes = 2.0 * static_cast<double>(bytes) / copy;
  return ceilings;
}

std::vector<BenchResult> run_case(const BenchCase& bench, Device device, const Ceilings& ceilings) {
  const double forward = time_forward(bench, device);
  std::vector<BenchResult> results;
  if (bench.forward_work.flops + bench.forward_work.bytes > 0.0) {
    results.push_back(result_of(bench, " forward", bench.forward_work, forward, ceilings));
  }
  if (bench.backward_work.flops + bench.backward_work.bytes > 0.0) {
    results.push_back(result_of(bench, " backward", bench.backward_work,
                                time_backward(bench, device, forward), ceilings));
  }
  return results;
}

std::string result_header() {
  return fmt::format("{:<30} {:<34} {:>10} {:>9} {:>9} {:>9}", "operator", "shape", "ms", "TFLOP/s",
                     "GB/s", "of floor");
}

std::string result_line(const BenchResult& r) {
  const auto rate = [&](double amount, double unit) {
    return amount == 0.0 ? std::string("-") : fmt::format("{:.1f}", amount / r.seconds / unit);
  };
  return fmt::format("{:<30} {:<34} {:>10.4f} {:>9} {:>9} {:>8.0f}%", r.name, r.shape,
                     1e3 * r.seconds, rate(r.work.flops, 1e12), rate(r.work.bytes, 1e9),
                     100.0 * r.floor_seconds / r.seconds);
}

}  // namespace fulcrum::apps
