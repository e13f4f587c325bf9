#include "apps/plan/report.h"

#include <algorithm>

#include "apps/train/config_parser.h"
#include "framework/config/load.h"
#include "framework/core/error.h"
#include "framework/core/memory_pool.h"
#include "framework/ops/gemm.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::apps;

namespace {

const char* const kExperiment = R"(
device: cpu
model:
  layers: 2
  width: 8
  ffn_width: 16
  vocabulary: 10
  attention: {heads: 2}
train: {steps: 10, sequence_length: 16, global_batch: 8, micro_batch: 2}
)";

const char* const kSparse = R"(
device: cpu
model:
  layers: 2
  width: 64
  vocabulary: 100
  attention: {heads: 4}
  moe: {experts: 16, top_k: 2, expert_width: 64}
  dse: {layers: [0], heads: 2, width: 32}
  budget: {rho: 0.5}
train: {steps: 10, sequence_length: 16, global_batch: 8}
)";

Plan plan_of(const char* text, std::int64_t ranks, const std::vector<std::string>& overrides = {}) {
  config::Value root = config::parse_yaml(text, "run.yaml");
  for (const auto& assignment : overrides) config::apply_override(root, assignment);
  return make_plan(parse_experiment(root), ranks);
}

}  // namespace

TEST_CASE("memory of a dense model is counted by hand", "[unit][plan]") {
  const Plan plan = plan_of(kExperiment, 2);
  CHECK(plan.batch.accumulation == 2);
  const std::int64_t parameters = 2 * 80 + 8 + 2 * (24 * 8 + 8 * 8 + 3 * 16 * 8 + 16);
  CHECK(plan.budget.count.total == parameters);
  // Tensors of a block: two norms, qkv, output, gate beside up, down.
  const auto pooled = [](std::int64_t values) { return pooled_bytes(4 * values); };
  const std::int64_t matrices = pooled(24 * 8) + pooled(8 * 8) + pooled(32 * 8) + pooled(8 * 16);
  const std::int64_t weights = 2 * pooled(80) + pooled(8) + 2 * (2 * pooled(8) + matrices);
  CHECK(plan.memory.weights == weights);
  CHECK(plan.memory.gradients == pooled(parameters));
  CHECK(plan.memory.optimizer == 2 * weights);
  // Of 32 tokens: norms, q, k, v, attention, sums, feed-forward.
  const std::int64_t d = pooled(32 * 8);
  const std::int64_t block =
      4 * d + 2 * pooled(32) + 4 * d + pooled(32 * 2) + pooled(32 * 32) + pooled(32 * 16);
  const std::int64_t loss = 3 * d + pooled(32) + pooled(32 * 10) + pooled(80);
  const std::int64_t backward = d + pooled(32 * 32);
  CHECK(plan.memory.activations == pooled(32 * 3) + 2 * block + std::max(loss, backward));
  CHECK(plan.memory.dispatch == 0);
  CHECK(plan.memory.checkpoint == 0);  // half the state for each rank is less than the activations
  CHECK(plan.memory.total() == 3 * weights + plan.memory.gradients + plan.memory.activations);
  const auto saving = plan_of(kExperiment, 2, {"checkpoint.every=5"}).memory;
  CHECK(saving.checkpoint == 3 * weights / 2);

  // Muon keeps one moment of the blocks' matrices.
  const auto muon = plan_of(kExperiment, 2, {"train.optimizer.kind=muon"}).memory;
  CHECK(plan.memory.optimizer - muon.optimizer == 2 * matrices);
}

TEST_CASE("tables are divided over data ranks, experts over expert ranks", "[unit][plan]") {
  const Plan one = plan_of(kSparse, 1);
  const Plan four = plan_of(kSparse, 4);
  const std::int64_t rows = one.budget.count.tables / 8;
  const std::int64_t held = (rows + 3) / 4;
  const std::int64_t table = pooled_bytes(4 * 8 * rows) - pooled_bytes(4 * 8 * held);
  CHECK(one.memory.weights - four.memory.weights == table);
  CHECK(one.memory.optimizer - four.memory.optimizer ==
        2 * table + pooled_bytes(4 * rows) - pooled_bytes(4 * held));
  // Two orders of two heads for each of 32 tokens; ids and rows. Gradients of each micro-batch,
  // four on one rank; with others also what is sent and received.
  const std::int64_t touched = std::min<std::int64_t>(rows, 32 * 4);
  const std::int64_t once = pooled_bytes(touched * 8 * 4) + pooled_bytes(touched * 8);
  CHECK(one.memory.dispatch == 4 * once);
  CHECK(four.memory.dispatch == 3 * once);

  const Plan split =
      plan_of(kSparse, 4, {"model.moe.groups=2", "model.moe.top_groups=2", "parallel.expert=2"});
  const Plan whole = plan_of(kSparse, 4, {"model.moe.groups=2", "model.moe.top_groups=2"});
  CHECK(whole.memory.weights - split.memory.weights == 2 * whole.budget.count.routed_experts);
  CHECK(split.memory.dispatch - whole.memory.dispatch == 4 * 32 * 2 * 64 * 4);
}

TEST_CASE("the plan's JSON has the promised keys", "[unit][plan]") {
  const auto json = to_json(plan_of(kSparse, 2));
  const auto& p = json["parameters"];
  CHECK(p["total"] == p["embedding"].get<std::int64_t>() + p["experts"].get<std::int64_t>() +
                          p["memory"].get<std::int64_t>() + p["other"].get<std::int64_t>());
  std::int64_t parts = 0;
  for (const auto& n : p["by_part"]) parts += n.get<std::int64_t>();
  CHECK(p["total"] == parts);
  CHECK(p["active"].get<std::int64_t>() < p["total"].get<std::int64_t>());
  CHECK(json["rho"] == 0.5);
  CHECK(json["budget"]["experts"] == 9);
  CHECK(json["flops_per_token"].get<double>() > 6.0 * p["p_act"].get<double>() * 0.9);
  CHECK(json["tokens_per_step"] == 128);
  CHECK(json["total_flops"] == 1280 * json["flops_per_token"].get<double>());
  std::int64_t bytes = 0;
  for (const char* kind :
       {"weights", "gradients", "optimizer", "activations", "dispatch_buffers", "checkpoint"})
    bytes += json["memory_per_rank"][kind].get<std::int64_t>();
  CHECK(json["memory_per_rank"]["total"] == bytes);
}

TEST_CASE("pure MoE and dense models have rho 1 and no memory", "[unit][plan]") {
  for (const auto& overrides :
       {std::vector<std::string>{"model.budget.rho=1.0"},
        std::vector<std::string>{"model.dse=null", "model.budget.rho=null"}}) {
    const auto json = to_json(plan_of(kSparse, 1, overrides));
    CHECK(json["rho"] == 1.0);
    CHECK(json["parameters"]["memory"] == 0);
    CHECK(json["budget"]["experts"] == 16);
  }
  CHECK(to_text(plan_of(kExperiment, 1)).find("rho") == std::string::npos);
}

TEST_CASE("pipeline stages hold their blocks", "[unit][plan]") {
  const Plan plan = plan_of(kExperiment, 2, {"parallel.pipeline=2"});
  // The first stage needs most: it has one block and the embedding, and two micro-batches at once.
  const auto pooled = [](std::int64_t values) { return pooled_bytes(4 * values); };
  const std::int64_t block =
      2 * pooled(8) + pooled(24 * 8) + pooled(8 * 8) + pooled(32 * 8) + pooled(8 * 16);
  CHECK(plan.memory.weights == block + pooled(80));
}

TEST_CASE("a plan that cannot be says why", "[unit][plan]") {
  const auto problem = [](const std::vector<std::string>& overrides, std::int64_t ranks) {
    return testing::message_of<UserError>([&] { plan_of(kSparse, ranks, overrides); });
  };
  CHECK(problem({}, 3).find("train.global_batch = 8 does not divide by the 3 data ranks") == 0);
  CHECK(problem({"parallel.expert=2"}, 2).find("does not divide the 9 routed experts") !=
        std::string::npos);
  CHECK(problem({"model.vocabulary=0"}, 1).find("model.vocabulary: must be given") == 0);
  CHECK_THROWS_AS(plan_of(kSparse, 1, {"model.vocabulary=0", "data.path=/nowhere"}), UserError);
}

TEST_CASE("bf16 halves what products read; on CUDA also activations, beside f32 masters",
          "[unit][plan]") {
  const auto memory = [](const std::vector<std::string>& overrides) {
    return plan_of(kExperiment, 1, overrides).memory;
  };
  const std::vector<std::string> size = {"model.width=256", "model.ffn_width=512"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), size.begin(), size.end());
    return memory(more);
  };
  const RankMemory f32 = with({});
  const RankMemory cpu = with({"train.precision=bf16"});
  const RankMemory cuda = with({"device=cuda"});  // where auto means bf16
  CHECK(cpu.weights == f32.weights);
  CHECK(cpu.optimizer == f32.optimizer);
  CHECK(cpu.activations < f32.activations);
  CHECK(static_cast<double>(cuda.weights) ==
        Approx(1.5 * static_cast<double>(f32.weights)).epsilon(0.01));
  CHECK(cuda.gradients == f32.gradients);
  CHECK(cuda.optimizer == f32.optimizer);
  CHECK(cuda.activations - ops::kMatmulWorkspaceBytes < cpu.activations);
  CHECK(with({"device=cuda", "checkpoint.every=5"}).checkpoint == 0);
}
