#include <cmath>

#include "framework/autograd/tape.h"
#include "framework/core/philox.h"
#include "models/language_model.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"
#include "tests/models/cuda_model.h"

using namespace fulcrum;
using namespace fulcrum::models;
using fulcrum::testing::copy_values;
using fulcrum::testing::random;
using fulcrum::testing::relative_error;

namespace {

constexpr std::int64_t kRows = 3;
constexpr std::int64_t kLength = 67;
constexpr std::int64_t kVocabulary = 61;

ModelConfig small() {
  ModelConfig config;
  config.layers = 2;
  config.width = 48;
  config.ffn_width = 40;
  config.vocabulary = kVocabulary;
  config.init_std = 0.2;
  config.attention.heads = 2;
  config.attention.kv_heads = 1;
  config.attention.head_dim = 16;
  config.dse.emplace();
  config.dse->layers = {0, 1};
  config.dse->orders = {2, 3};
  config.dse->heads = 2;
  config.dse->width = 64;
  config.dse->rows_per_head = {101};
  config.dse->convolution_zero_init = false;
  config.dse->table_std = 0.5;
  config.dse->boundary = BoundaryPolicy::document;
  // Near a score of zero the root is too steep to compare gradients of rounded scores.
  config.dse->signed_sqrt = false;
  return config;
}

// Merges every third id with the next.
HashedVocabulary compressed() {
  std::vector<std::int32_t> map(kVocabulary);
  std::int32_t next = 0;
  for (std::int32_t i = 0; i < kVocabulary; ++i) {
    map[static_cast<std::size_t>(i)] = next;
    if (i % 3 != 0) ++next;
  }
  return {Tensor::from(map, {kVocabulary}), next + 1, 2};
}

data::Batch random_batch(std::uint64_t seed) {
  data::Batch batch{Tensor::empty({kRows, kLength}, DType::i32),
                    Tensor::empty({kRows, kLength}, DType::i32),
                    Tensor::empty({kRows, kLength}, DType::i32)};
  const Random draw(seed, 1);
  for (std::int64_t i = 0; i < kRows * kLength; ++i) {
    const auto at = static_cast<std::uint64_t>(i);
    // Few ids in the first row, so that some n-grams are frequent.
    const std::uint64_t bound = i < kLength ? 3 : kVocabulary;
    batch.ids.data<std::int32_t>()[i] = static_cast<std::int32_t>(draw.below(2 * at, bound));
    batch.targets.data<std::int32_t>()[i] =
        static_cast<std::int32_t>(draw.below(2 * at + 1, kVocabulary));
    const std::int64_t t = i % kLength;
    batch.document_start.data<std::int32_t>()[i] = static_cast<std::int32_t>(t - t % 23);
  }
  return batch;
}

ForwardPass pass_of(const data::Batch& batch) {
  ForwardPass pass{batch};
  pass.global_tokens = kRows * kLength;
  pass.token_weight = 1.0 / static_cast<double>(pass.global_tokens);
  return pass;
}

// f64 on the CPU; of a table, all its rows.
Tensor gradient_of(const Parameter& p) {
  if (p.kind != ParameterKind::table) return p.value.grad().to(Device{}).to(DType::f64);
  const Tensor dense = Tensor::zeros(p.value.shape(), DType::f64);
  const ops::MergedRows merged = ops::merge_sparse(p.slot().sparse, p.value.dim(0));
  const std::int64_t count =
      merged.count.defined() ? static_cast<std::int64_t>(merged.count.item()) : merged.rows.numel();
  const Tensor rows = merged.rows.to(Device{});
  const Tensor values = merged.values.to(Device{}).to(DType::f64);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t row = rows.data<std::int64_t>()[i];
    dense.slice(row, row + 1).copy_from(values.slice(i, i + 1));
  }
  return dense;
}

void check_gradients(const ParameterStore& cuda, const ParameterStore& cpu, double tolerance) {
  for (std::size_t i = 0; i < cpu.parameters().size(); ++i) {
    INFO(cpu.parameters()[i]->name);
    CHECK(relative_error(gradient_of(*cuda.parameters()[i]), gradient_of(*cpu.parameters()[i])) <
          tolerance);
  }
}

// A memory with its parameters, and what two micro-batches leave.
struct Layer {
  Layer(const ModelConfig& config, ParameterStore::Placement placement)
      : store(5, placement),
        memory(store, "memory", config, make_hashes(*config.dse, compressed().size)[0],
               compressed(), parallel::Communicator()) {}

  // hidden f64 on the CPU, exact in the layer's dtype.
  void run(const Tensor& hidden) {
    const Device device = store.device();
    store.zero_gradients();
    outputs.clear();
    gradients.clear();
    for (const std::uint64_t seed : {1, 2}) {
      const data::Batch batch = random_batch(seed).to(device);
      ForwardPass pass = pass_of(batch);
      Tensor input = hidden.to(store.compute_dtype()).to(device);
      input.set_slot(std::make_shared<GradSlot>());
      Tape tape;
      Tensor output;
      {
        const Tape::Scope recording(tape);
        memory.prepare(pass);
        output = memory.forward(input, memory.read(input.dtype()), pass);
      }
      const Tensor weights = random(output.shape(), 9 + seed).to(DType::bf16);
      tape.backward({output}, {weights.to(output.dtype()).to(device)});
      outputs.push_back(output.detach().to(Device{}).to(DType::f64));
      gradients.push_back(input.grad().to(Device{}).to(DType::f64));
      gate = pass.gate_means.at(0).item();
    }
    memory.finish_step();
  }

  ParameterStore store;
  Memory memory;
  std::vector<Tensor> outputs, gradients;
  double gate = 0.0;
};

void check_layer(const ModelConfig& config, DType dtype, double tolerance) {
  Layer cuda(config, {dtype, testing::cuda_device()});
  Layer cpu(config, {DType::f64, Device{}});
  copy_values(cuda.store, cpu.store);
  const Tensor hidden = random({kRows, kLength, config.width}, 7).to(DType::bf16).to(DType::f64);
  cpu.run(hidden);
  poison_memory(true);
  cuda.run(hidden);
  poison_memory(false);
  for (std::size_t k = 0; k < cpu.outputs.size(); ++k) {
    CHECK(relative_error(cuda.outputs[k], cpu.outputs[k]) < tolerance);
    CHECK(relative_error(cuda.gradients[k], cpu.gradients[k]) < tolerance);
  }
  CHECK(cuda.gate == Approx(cpu.gate).epsilon(tolerance));
  check_gradients(cuda.store, cpu.store, tolerance);
}

}  // namespace

TEST_CASE("a memory on CUDA equals that on the CPU", "[gpu][models]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    INFO(name_of(dtype));
    const double tolerance = dtype == DType::f32 ? 2e-5 : 2e-2;
    ModelConfig config = small();
    check_layer(config, dtype, tolerance);
    config.dse->boundary = BoundaryPolicy::none;
    config.dse->bias = true;
    check_layer(config, dtype, tolerance);
    config.dse->convolution_kernel = 0;
    check_layer(config, dtype, tolerance);
    config.dse->convolution_kernel = 3;
    config.dse->signed_sqrt = true;
    config.width = 50;  // not in quads
    check_layer(config, dtype, 30 * tolerance);
  }
}

TEST_CASE("a language model with memories on CUDA equals that on the CPU", "[gpu][models]") {
  const ModelConfig config = small();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    INFO(name_of(dtype));
    const double tolerance = dtype == DType::f32 ? 5e-5 : 5e-2;
    const Device device = testing::cuda_device();
    ParameterStore cuda(5, {dtype, device});
    ParameterStore cpu(5, {DType::f64, Device{}});
    LanguageModel cuda_model(config, cuda, compressed(), parallel::Communicator());
    LanguageModel cpu_model(config, cpu, compressed(), parallel::Communicator());
    copy_values(cuda, cpu);
    const auto run = [](LanguageModel& model, const ParameterStore& store) {
      const data::Batch batch = random_batch(3).to(store.device());
      ForwardPass pass = pass_of(batch);
      store.zero_gradients();
      Tape tape;
      Loss loss;
      {
        const Tape::Scope recording(tape);
        loss = model.loss(pass);
      }
      tape.backward(loss.total);
      model.finish_step();
      return loss.total.item();
    };
    const double expected = run(cpu_model, cpu);
    poison_memory(true);
    const double loss = run(cuda_model, cuda);
    poison_memory(false);
    CHECK(loss == Approx(expected).epsilon(tolerance));
    check_gradients(cuda, cpu, tolerance);
  }
}
