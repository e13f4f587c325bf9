// The optimizers' steps and the gradient's norm.

#include <algorithm>
#include <cmath>

#include "apps/bench/case.h"
#include "apps/bench/inputs.h"
#include "framework/autograd/grad_slot.h"
#include "framework/optim/adamw.h"
#include "framework/optim/clipping.h"
#include "framework/optim/muon.h"

namespace fulcrum::apps {
namespace {

// Stacked experts with gradients, and an optimizer of theirs.
struct Held {
  ParameterStore store;
  std::vector<Parameter*> parameters;
  std::unique_ptr<Optimizer> optimizer;

  Held(Device device, DType dtype, const Shape& shape, std::vector<std::int64_t> parts)
      : store(1, {dtype, device}) {
    Parameter& p = store.create("experts", ParameterKind::expert, shape, Initializer::normal(0.02),
                                std::move(parts));
    p.slot().grad = random_values(shape, p.master.dtype(), device, 2, 1e-3);
    p.slot().fresh = false;
    parameters = {&p};
  }
  double elements() const { return static_cast<double>(parameters[0]->master.numel()); }
  // Of values that are rounded from masters.
  double rounded_bytes() const { return parameters[0]->rounded() ? 2.0 : 0.0; }
};

std::string text(const Shape& s) { return fmt::format("{} x {} x {}", s[0], s[1], s[2]); }

BenchCase step_case(const std::string& name, const Shape& shape, std::shared_ptr<Held> held,
                    Work work) {
  const auto step = [held](const std::vector<Tensor>&) {
    held->optimizer->step(1e-4, 0.5);
    return std::vector<Tensor>{};
  };
  return {name, text(shape), {}, step, work, {}};
}

std::vector<BenchCase> adamw_cases(Device device, DType dtype, DType moments) {
  const Shape shape = device.is_cpu() ? Shape{8, 256, 384} : Shape{32, 2816, 2048};
  const auto held = std::make_shared<Held>(device, dtype, shape, std::vector<std::int64_t>{});
  AdamWOptions options;
  options.moments = moments;
  held->optimizer = std::make_unique<AdamW>(held->parameters, options);
  // Reads weight, gradient and two moments, writes all but the gradient.
  const double bytes = 12.0 + 4.0 * static_cast<double>(size_of(moments)) + held->rounded_bytes();
  const Work work{0.0, held->elements() * bytes};
  if (moments == DType::bf16) return {step_case("adamw, bf16 moments", shape, held, work)};
  const auto norm = [held, device](const std::vector<Tensor>&) {
    return std::vector{gradient_square_sum(held->parameters, device)};
  };
  return {step_case("adamw", shape, held, work),
          {"gradient norm", text(shape), {}, norm, {0.0, held->elements() * 4.0}, {}}};
}

// Floating-point operations of Newton–Schulz for one matrix.
double newton_schulz_flops(double rows, double cols, double iterations) {
  const double small = std::min(rows, cols);
  return iterations * (4.0 * small * rows * cols + 2.0 * small * small * small);
}

std::vector<BenchCase> muon_cases(Device device, DType dtype) {
  const Shape shape = device.is_cpu() ? Shape{4, 256, 192} : Shape{16, 2816, 2048};
  const std::int64_t half = shape[1] / 2;
  const auto held = std::make_shared<Held>(device, dtype, shape, std::vector{half, half});
  const MuonOptions options;
  held->optimizer = std::make_unique<Muon>(held->parameters, options);
  const double flops = 2.0 * static_cast<double>(shape[0]) *
                       newton_schulz_flops(static_cast<double>(half), static_cast<double>(shape[2]),
                                           static_cast<double>(options.iterations));
  // Reads weight, gradient and momentum, writes all but the gradient.
  return {
      step_case("muon", shape, held, {flops, held->elements() * (20.0 + held->rounded_bytes())})};
}

}  // namespace

std::vector<BenchGroup> optimizer_groups(Device device, DType dtype) {
  return {{"optimizer", [=] { return adamw_cases(device, dtype, DType::f32); }},
          {"optimizer", [=] { return adamw_cases(device, dtype, DType::bf16); }},
          {"optimizer", [=] { return muon_cases(device, dtype); }}};
}

}  // namespace fulcrum::apps
