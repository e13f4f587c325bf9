#include "models/language_model.h"

#include <cmath>

#include "framework/autograd/tape.h"
#include "framework/core/philox.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::models;

namespace {

constexpr std::int64_t kVocabulary = 23;
constexpr std::int64_t kRows = 2;
constexpr std::int64_t kLength = 9;

ModelConfig tiny() {
  ModelConfig config;
  config.layers = 2;
  config.width = 8;
  config.ffn_width = 12;
  config.vocabulary = kVocabulary;
  config.init_std = 0.3;  // large enough for gradients to be seen
  config.attention.heads = 2;
  config.attention.kv_heads = 1;
  config.attention.head_dim = 4;
  return config;
}

ModelConfig tiny_moe() {
  ModelConfig config = tiny();
  config.moe.experts = 5;
  config.moe.top_k = 2;
  config.moe.shared_experts = 1;
  config.moe.expert_width = 6;
  config.moe.leading_dense = 1;
  config.moe.balance.expert_loss = 0.1;
  config.moe.balance.sequence_loss = 0.1;
  config.moe.balance.z_loss = 0.1;
  return config;
}

ModelConfig tiny_dse() {
  ModelConfig config = tiny_moe();
  config.dse.emplace();
  config.dse->layers = {0, 1};
  config.dse->orders = {2, 3};
  config.dse->heads = 2;
  config.dse->width = 8;
  config.dse->rows_per_head = {17};
  config.dse->convolution_zero_init = false;
  config.dse->table_std = 0.5;
  config.dse->boundary = BoundaryPolicy::document;
  return config;
}

// A model in double with everything it needs.
struct Harness {
  explicit Harness(const ModelConfig& config)
      : store(3, DType::f64), model(config, store, identity(), parallel::Communicator()) {
    batch.ids = Tensor::empty({kRows, kLength}, DType::i32);
    batch.targets = Tensor::empty({kRows, kLength}, DType::i32);
    batch.document_start = Tensor::empty({kRows, kLength}, DType::i32);
    const Random random(5, 1);
    for (std::int64_t i = 0; i < kRows * kLength; ++i) {
      batch.ids.data<std::int32_t>()[i] =
          static_cast<std::int32_t>(random.below(2 * i, kVocabulary));
      batch.targets.data<std::int32_t>()[i] =
          static_cast<std::int32_t>(random.below(2 * i + 1, kVocabulary));
      batch.document_start.data<std::int32_t>()[i] = i % kLength < 4 ? 0 : 4;
    }
  }

  static HashedVocabulary identity() {
    std::vector<std::int32_t> map(kVocabulary);
    for (std::int32_t i = 0; i < kVocabulary; ++i) map[i] = i;
    return {Tensor::from(map, {kVocabulary}), kVocabulary, 2};
  }

  Loss loss() {
    for (MoeFeedForward* moe : model.mixtures()) moe->begin_step();
    ForwardPass pass{batch};
    pass.global_tokens = kRows * kLength;
    pass.token_weight = 1.0 / (kRows * kLength);
    pass.recompute = recompute;
    const Loss loss = model.loss(pass, 1e-2);
    reports = {pass.gate_means.size(), pass.dropped_slots.size(), pass.auxiliary.size()};
    return loss;
  }
  double value() { return loss().total.data<double>()[0]; }

  ParameterStore store;
  LanguageModel model;
  data::Batch batch;
  Recompute recompute = Recompute::none;
  std::vector<std::size_t> reports;  // gates, dropped slots and auxiliary losses of the last pass
};

// Returns the loss.
double backward(Harness& harness) {
  harness.store.zero_gradients();
  Tape tape;
  Tensor total;
  {
    Tape::Scope recording(tape);
    total = harness.loss().total;
  }
  tape.backward(total);
  return total.item();
}

// Largest error of the tape's gradient against central differences over some elements of every
// parameter.
double parameter_gradient_error(Harness& harness) {
  backward(harness);
  double worst = 0.0;
  for (const auto& parameter : harness.store.parameters()) {
    double* p = parameter->value.data<double>();
    std::vector<double> gradient(static_cast<std::size_t>(parameter->value.numel()), 0.0);
    if (parameter->kind == ParameterKind::table) {
      const ops::MergedRows rows =
          ops::merge_sparse(parameter->slot().sparse, parameter->value.dim(0));
      const std::int64_t width = parameter->value.dim(1);
      for (std::int64_t i = 0; i < rows.rows.numel() * width; ++i) {
        gradient[rows.rows.data<std::int64_t>()[i / width] * width + i % width] =
            rows.values.data<double>()[i];
      }
    } else if (!parameter->slot().fresh) {
      gradient = parameter->value.grad().to_vector<double>();
    }
    const std::int64_t n = parameter->value.numel();
    const std::int64_t stride = std::max<std::int64_t>(1, n / 13);
    for (std::int64_t i = 0; i < n; i += stride) {
      const double x = p[i];
      const double step = 1e-5;
      p[i] = x + step;
      const double above = harness.value();
      p[i] = x - step;
      const double below = harness.value();
      p[i] = x;
      const double numeric = (above - below) / (2 * step);
      const double error = std::abs(numeric - gradient[i]) / (1e-3 + std::abs(numeric));
      INFO(parameter->name << "[" << i << "]: tape " << gradient[i] << ", differences " << numeric);
      CHECK(error < 1e-3);
      if (!(error <= worst)) worst = error;
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("gradients of whole models agree with finite differences", "[unit][models]") {
  SECTION("dense") {
    Harness harness(tiny());
    parameter_gradient_error(harness);
  }
  SECTION("dense with tied embeddings") {
    ModelConfig config = tiny();
    config.tie_embeddings = true;
    Harness harness(config);
    parameter_gradient_error(harness);
  }
  SECTION("mixture of experts") {
    Harness harness(tiny_moe());
    parameter_gradient_error(harness);
  }
  SECTION("sigmoid router with renormalised weights") {
    ModelConfig config = tiny_moe();
    config.moe.score = RouterScore::sigmoid;
    config.moe.renormalize = true;
    config.moe.route_scale = 1.5;
    Harness harness(config);
    parameter_gradient_error(harness);
  }
  SECTION("memories with biases and without a convolution") {
    ModelConfig config = tiny_dse();
    config.dse->bias = true;
    config.dse->convolution_kernel = 0;
    config.dse->signed_sqrt = false;
    Harness harness(config);
    parameter_gradient_error(harness);
  }
  SECTION("memories") {
    Harness harness(tiny_dse());
    parameter_gradient_error(harness);
  }
}

TEST_CASE("recomputed activations give the same bits and take less memory", "[unit][models]") {
  ModelConfig config = tiny_dse();
  config.layers = 6;
  config.moe.balance.scope = GENERATE(BalanceScope::micro_batch, BalanceScope::global_batch);
  struct Seen {
    double loss;
    std::vector<std::vector<double>> gradients;
    std::vector<std::int64_t> load;
    std::vector<std::size_t> reports;
    std::int64_t peak;
  };
  const auto see = [&](Recompute recompute) {
    Harness harness(config);
    harness.recompute = recompute;
    backward(harness);
    const std::int64_t before = memory_stats().in_use;
    reset_peak_memory();
    Seen seen{backward(harness), {}, {}, harness.reports, memory_stats().peak - before};
    for (const auto& parameter : harness.store.parameters()) {
      const bool table = parameter->kind == ParameterKind::table;
      const Tensor gradient =
          table ? ops::merge_sparse(parameter->slot().sparse, parameter->value.dim(0)).values
                : parameter->value.grad();
      seen.gradients.push_back(gradient.to_vector<double>());
    }
    for (MoeFeedForward* moe : harness.model.mixtures()) {
      for (const std::int64_t count : moe->load().to_vector<std::int64_t>())
        seen.load.push_back(count);
    }
    return seen;
  };
  const Seen none = see(Recompute::none);
  const Seen selective = see(Recompute::selective);
  const Seen full = see(Recompute::full);
  for (const Seen& other : {selective, full}) {
    CHECK(other.loss == none.loss);
    CHECK(other.gradients == none.gradients);
    CHECK(other.load == none.load);
    CHECK(other.reports == none.reports);
  }
  CHECK(none.reports == std::vector<std::size_t>{2, 5, 15});
  INFO("peaks " << none.peak << " " << selective.peak << " " << full.peak);
  CHECK(selective.peak < none.peak);
  CHECK(full.peak < selective.peak);
}

TEST_CASE("a model sees no future token", "[unit][models]") {
  Harness harness(tiny_dse());
  const auto logits = [&] {
    ForwardPass pass{harness.batch, /*training=*/false};
    return harness.model.logits(pass).to_vector<double>();
  };
  const std::vector<double> before = logits();
  constexpr std::int64_t kChanged = 6;
  harness.batch.ids.data<std::int32_t>()[kChanged] =
      (harness.batch.ids.data<std::int32_t>()[kChanged] + 1) % kVocabulary;
  const std::vector<double> after = logits();
  for (std::int64_t t = 0; t < kRows * kLength; ++t) {
    double difference = 0.0;
    for (std::int64_t v = 0; v < kVocabulary; ++v) {
      difference += std::abs(before[t * kVocabulary + v] - after[t * kVocabulary + v]);
    }
    const bool may_change = t >= kChanged && t < kLength;
    INFO("position " << t);
    CHECK((difference > 1e-9) == may_change);
  }
}

TEST_CASE("losses of micro-batches add up to the loss of the batch", "[unit][models]") {
  ModelConfig config = tiny_dse();
  config.moe.balance.expert_loss =
      0.0;  // counts of the batch so far: exact only with one micro-batch
  Harness harness(config);
  const double whole = harness.value();
  double sum = 0.0;
  for (std::int64_t r = 0; r < kRows; ++r) {
    const data::Batch part{harness.batch.ids.slice(r, r + 1), harness.batch.targets.slice(r, r + 1),
                           harness.batch.document_start.slice(r, r + 1)};
    ForwardPass pass{part};
    pass.global_tokens = kLength;
    pass.token_weight = 1.0 / (kRows * kLength);
    sum += harness.model.loss(pass, 1e-2).total.data<double>()[0];
  }
  CHECK(std::abs(sum - whole) < 1e-12);
}

TEST_CASE("a batch may be announced before another is computed", "[unit][models]") {
  Harness harness(tiny_dse());
  const double expected = harness.value();
  const data::Batch batch = harness.batch;
  harness.model.announce(batch);
  harness.batch.ids = batch.ids.clone();
  for (std::int64_t i = 0; i < kLength; ++i) harness.batch.ids.data<std::int32_t>()[i] = 3;
  CHECK(harness.value() != expected);
  harness.batch = batch;
  CHECK(harness.value() == expected);
  CHECK(harness.value() == expected);
}

TEST_CASE("a selection bias follows the load", "[unit][models]") {
  ModelConfig config = tiny_moe();
  config.moe.balance = {};
  config.moe.balance.bias_rate = 0.5;
  Harness harness(config);
  MoeFeedForward& moe = *harness.model.mixtures().front();
  moe.update_bias(Tensor::from<std::int64_t>({0, 4, 2, 2, 2}, {1, 5}));
  const auto& buffers = harness.store.buffers();
  REQUIRE(buffers.size() == 1);
  CHECK(buffers[0]->name == "blocks.1.feed_forward.router.bias");
  CHECK(buffers[0]->value.to_vector<float>() == std::vector<float>{0.5f, -0.5f, 0.0f, 0.0f, 0.0f});
}

TEST_CASE("what is counted but cannot be trained is refused", "[unit][models]") {
  ModelConfig nsa = tiny();
  nsa.attention.kind = AttentionKind::nsa;
  CHECK_THROWS_AS(Harness(nsa), UserError);
  ModelConfig mla = tiny();
  mla.attention.kind = AttentionKind::mla;
  CHECK_THROWS_AS(Harness(mla), UserError);
  ModelConfig branches = tiny();
  branches.hyper_connections = 4;
  CHECK_THROWS_AS(Harness(branches), UserError);
}
