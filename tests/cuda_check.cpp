#include "tests/cuda_check.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "framework/autograd/tape.h"
#include "framework/core/cuda_memory.h"
#include "tests/gradient_check.h"

namespace fulcrum::testing {
namespace {

struct Run {
  std::vector<Tensor> outputs, gradients;  // on the CPU; floating ones f64
};

Tensor to_host(const Tensor& x) {
  if (!x.defined()) return x;
  const Tensor host = x.to(Device{});
  return is_floating(host.dtype()) ? host.to(DType::f64) : host;
}

// inputs hold what f receives; weights are f64 on the CPU, already representable in dtype.
Run run(const TensorFunction& f, std::vector<Tensor> inputs, const std::vector<CudaInput>& kinds,
        const std::vector<Tensor>& weights) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!is_floating(inputs[i].dtype())) continue;
    if (kinds[i].kind == CudaInput::Kind::activation) {
      inputs[i].set_slot(std::make_shared<GradSlot>());
    } else {
      inputs[i] = make_leaf(inputs[i]);
    }
  }
  Tape tape;
  std::vector<Tensor> outputs;
  {
    const Tape::Scope recording(tape);
    outputs = f(inputs);
  }
  std::vector<Tensor> differentiable, seeds;
  std::size_t used = 0;
  for (const Tensor& output : outputs) {
    if (!output.requires_grad()) continue;
    differentiable.push_back(output);
    seeds.push_back(
        weights.at(used++).reshape(output.shape()).to(output.dtype()).to(output.device()));
  }
  if (!differentiable.empty()) tape.backward(differentiable, seeds);
  Run result;
  for (const Tensor& output : outputs) result.outputs.push_back(to_host(output));
  for (const Tensor& input : inputs) result.gradients.push_back(to_host(input.grad()));
  return result;
}

double difference(const Tensor& cuda, const Tensor& cpu) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (cuda.defined() != cpu.defined() || cuda.numel() != cpu.numel()) return kInfinity;
  if (!cpu.defined() || cpu.numel() == 0) return 0.0;
  if (is_floating(cpu.dtype())) return relative_error(cuda, cpu);
  return std::memcmp(cuda.raw(), cpu.raw(), static_cast<std::size_t>(cpu.bytes())) == 0 ? 0.0
                                                                                        : kInfinity;
}

}  // namespace

Device cuda_device() {
  FULCRUM_CHECK(cuda_device_count() > 0, "tests tagged [gpu] need a CUDA device and build");
  use_cuda_device(0);
  return {Device::Kind::cuda, 0};
}

double cuda_tolerance(DType dtype) { return dtype == DType::f32 ? 1e-5 : 1e-2; }

CudaErrors cuda_errors(const TensorFunction& f, const std::vector<CudaInput>& inputs, DType dtype) {
  const Device device = cuda_device();
  std::vector<Tensor> exact, rounded;
  for (const CudaInput& input : inputs) {
    Tensor value = input.value;
    if (is_floating(value.dtype()))
      value = value.to(input.kind == CudaInput::Kind::vector ? DType::f32 : dtype);
    rounded.push_back(value.to(device));
    exact.push_back(is_floating(value.dtype()) ? value.to(DType::f64) : value);
  }
  std::vector<Tensor> weights;  // as many as f has differentiable outputs
  {
    Tape tape;
    const Tape::Scope recording(tape);
    std::vector<Tensor> leaves = exact;
    for (Tensor& leaf : leaves) {
      if (is_floating(leaf.dtype())) leaf = make_leaf(leaf);
    }
    for (const Tensor& output : f(leaves)) {
      if (!output.requires_grad()) continue;
      weights.push_back(random(output.shape(), 1000 + weights.size()).to(dtype).to(DType::f64));
    }
  }
  const Run cpu = run(f, exact, inputs, weights);
  poison_memory(true);
  Run cuda;
  try {
    cuda = run(f, rounded, inputs, weights);
  } catch (...) {
    poison_memory(false);
    throw;
  }
  poison_memory(false);
  CudaErrors errors;
  for (std::size_t i = 0; i < cpu.outputs.size(); ++i) {
    errors.outputs = std::max(errors.outputs, difference(cuda.outputs.at(i), cpu.outputs[i]));
  }
  for (std::size_t i = 0; i < cpu.gradients.size(); ++i) {
    errors.gradients =
        std::max(errors.gradients, difference(cuda.gradients.at(i), cpu.gradients[i]));
  }
  return errors;
}

}  // namespace fulcrum::testing
