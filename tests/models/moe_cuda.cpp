#include "framework/autograd/tape.h"
#include "framework/core/philox.h"
#include "models/moe.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"
#include "tests/models/cuda_model.h"

using namespace fulcrum;
using namespace fulcrum::models;
using fulcrum::testing::random;
using fulcrum::testing::relative_error;

namespace {

constexpr std::int64_t kRows = 3;
constexpr std::int64_t kLength = 67;

ModelConfig small() {
  ModelConfig config;
  config.layers = 2;
  config.width = 64;
  config.init_std = 0.2;  // scores far enough apart for rounding to change no choice
  config.moe.experts = 16;
  config.moe.top_k = 4;
  config.moe.shared_experts = 1;
  config.moe.expert_width = 40;
  config.moe.balance.expert_loss = 0.1;
  config.moe.balance.sequence_loss = 0.1;
  config.moe.balance.z_loss = 0.1;
  return config;
}

data::Batch random_batch() {
  const Tensor ids = Tensor::empty({kRows, kLength}, DType::i32);
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    ids.data<std::int32_t>()[i] = static_cast<std::int32_t>(Random(1, 2).below(i, 1000));
  }
  return {ids, ids, ids};
}

// One mixture with its parameters, and what a forward and a backward pass leave.
struct Layer {
  Layer(const ModelConfig& config, ParameterStore::Placement placement)
      : store(5, placement), mixture(store, "moe", config) {}

  // x f64 on the CPU, exact in the layer's dtype.
  void run(const Tensor& x, const data::Batch& host) {
    const Device device = store.device();
    const data::Batch batch = host.to(device);
    ForwardPass pass{batch};
    pass.global_tokens = kRows * kLength;
    pass.token_weight = 1.0 / static_cast<double>(pass.global_tokens);
    Tensor input = x.to(store.compute_dtype()).to(device);
    input.set_slot(std::make_shared<GradSlot>());
    mixture.begin_step();
    store.zero_gradients();
    Tape tape;
    {
      const Tape::Scope recording(tape);
      output = mixture.forward(input, pass);
    }
    std::vector<Tensor> outputs = {output};
    std::vector<Tensor> seeds = {
        random(output.shape(), 9).to(DType::bf16).to(output.dtype()).to(device)};
    for (const Tensor& loss : pass.auxiliary) {
      outputs.push_back(loss);
      seeds.push_back(Tensor::full({1}, 1.0, loss.dtype(), device));
      auxiliary.push_back(loss.item());
    }
    tape.backward(outputs, seeds);
    gradient = input.grad();
    dropped = pass.dropped_slots.at(0).item();
  }

  ParameterStore store;
  MoeFeedForward mixture;
  Tensor output, gradient;
  std::vector<double> auxiliary;
  double dropped = 0.0;
};

double error(const Tensor& cuda, const Tensor& cpu) {
  return relative_error(cuda.to(Device{}), cpu);
}

void check_layer(const ModelConfig& config, DType dtype, double tolerance) {
  Layer cuda(config, {dtype, testing::cuda_device()});
  Layer cpu(config, {DType::f64, Device{}});
  testing::copy_values(cuda.store, cpu.store);
  const Tensor x = random({kRows, kLength, config.width}, 7).to(DType::bf16).to(DType::f64);
  const data::Batch batch = random_batch();
  for (int step = 0; step < 2; ++step) {
    cpu.run(x, batch);
    poison_memory(true);
    cuda.run(x, batch);
    poison_memory(false);
    CHECK(cuda.mixture.load().to(Device{}).to_vector<std::int64_t>() ==
          cpu.mixture.load().to_vector<std::int64_t>());
    CHECK(cuda.dropped == cpu.dropped);
    CHECK(error(cuda.output, cpu.output) < tolerance);
    CHECK(error(cuda.gradient, cpu.gradient) < tolerance);
    REQUIRE(cuda.auxiliary.size() == cpu.auxiliary.size());
    for (std::size_t i = 0; i < cpu.auxiliary.size(); ++i) {
      CHECK(cuda.auxiliary[i] == Approx(cpu.auxiliary[i]).epsilon(tolerance));
    }
    for (std::size_t i = 0; i < cpu.store.parameters().size(); ++i) {
      INFO(cpu.store.parameters()[i]->name);
      CHECK(error(cuda.store.parameters()[i]->value.grad(),
                  cpu.store.parameters()[i]->value.grad()) < tolerance);
    }
    // The load of the first step moves the bias of the second.
    cpu.mixture.update_bias(cpu.mixture.load());
    cuda.mixture.update_bias(cuda.mixture.load());
  }
}

}  // namespace

TEST_CASE("a mixture on CUDA equals that on the CPU", "[gpu][models]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const double tolerance = testing::cuda_tolerance(dtype);
    INFO(name_of(dtype));
    ModelConfig config = small();
    check_layer(config, dtype, tolerance);
    config.moe.score = RouterScore::sigmoid;
    config.moe.renormalize = true;
    config.moe.route_scale = 2.5;
    config.moe.balance.bias_rate = 0.05;
    check_layer(config, dtype, tolerance);
    config.moe.groups = 4;
    config.moe.top_groups = 2;
    config.moe.capacity_factor = 0.9;
    config.moe.undropped_sequences = 0.3;
    config.moe.balance.device_loss = 0.1;
    config.moe.balance.communication_loss = 0.1;
    config.moe.shared_experts = 0;
    check_layer(config, dtype, tolerance);
  }
}
