#include "models/budget.h"

#include <algorithm>
#include <cmath>

#include "framework/core/error.h"
#include "models/budget_solver.h"
#include "models/config_parser.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::models;
using testing::message_of;

namespace {

AttentionConfig attention_of(AttentionKind kind, std::int64_t kv_heads) {
  AttentionConfig attention;
  attention.kind = kind;
  attention.heads = 4;
  attention.kv_heads = kv_heads;
  attention.head_dim = 16;
  return attention;
}

ModelConfig small_model() {
  ModelConfig model;
  model.layers = 4;
  model.width = 64;
  model.ffn_width = 160;
  model.vocabulary = 1000;
  model.attention = attention_of(AttentionKind::full, 2);
  model.moe.experts = 16;
  model.moe.top_k = 1;
  model.moe.segmentation = 2;
  model.moe.expert_width = 96;
  model.moe.shared_experts = 1;
  model.moe.leading_dense = 1;
  return model;
}

ModelConfig with_memory(ModelConfig model, double rho) {
  model.dse.emplace();
  model.dse->layers = {1, 2};
  model.dse->heads = 4;
  model.dse->width = 64;
  model.budget.rho = rho;
  return model;
}

std::int64_t numel(const std::vector<CountedTensor>& tensors, const std::string& name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const CountedTensor& t) { return t.name == name; });
  return found == tensors.end() ? -1 : found->numel();
}

}  // namespace

TEST_CASE("a dense model is counted by hand", "[unit][budget]") {
  ModelConfig model = small_model();
  model.moe = {};
  const auto count = count_parameters(model);
  const std::int64_t block = 64 * 128 + 64 * 64 + 3 * 160 * 64 + 2 * 64;
  CHECK(count.embedding == 2 * 64000);
  CHECK(count.other == 4 * block + 64);
  CHECK(count.total == count.embedding + count.other);
  CHECK(count.experts == 0);
  CHECK(count.memory == 0);
  CHECK(count.active == count.total - 64000);
  CHECK(count.p_sparse() == 0);

  model.tie_embeddings = true;
  const auto tied = count_parameters(model);
  CHECK(tied.total == count.total - 64000);
  CHECK(tied.active == count.active);
  CHECK(tied.p_act() == count.p_act());
}

TEST_CASE("names and shapes of a block with memory and experts", "[unit][budget]") {
  ModelConfig model = with_memory(small_model(), 1.0);
  model.budget.rho.reset();
  model.dse->rows_per_head = {10, 20};
  model.dse->bias = true;
  std::vector<std::string> names;
  for (const auto& tensor : list_parameters(model)) {
    if (tensor.name.rfind("blocks.1.", 0) == 0)
      names.push_back(tensor.name.substr(9) + " " + to_string(tensor.shape));
  }
  // 11 13 17 19 and, for trigrams, 23 29 31 37
  CHECK(names == std::vector<std::string>{
                     "memory.table.weight [180, 8]", "memory.key.weight [64, 64]",
                     "memory.value.weight [64, 64]", "memory.hidden_norm.weight [64]",
                     "memory.key_norm.weight [64]", "memory.key.bias [64]",
                     "memory.value.bias [64]", "memory.convolution_norm.weight [64]",
                     "memory.convolution.weight [64, 4]", "attention_norm.weight [64]",
                     "attention.qkv.weight [128, 64]", "attention.output.weight [64, 64]",
                     "feed_forward_norm.weight [64]", "feed_forward.router.weight [32, 64]",
                     "feed_forward.experts.gate_up.weight [32, 96, 64]",
                     "feed_forward.experts.down.weight [32, 64, 48]",
                     "feed_forward.shared.gate_up.weight [96, 64]",
                     "feed_forward.shared.down.weight [64, 48]"});
  // Primes are taken over all layers: the second one goes on where the first stopped.
  CHECK(table_rows(*model.dse) ==
        std::vector<std::int64_t>{180, 41 + 43 + 47 + 53 + 59 + 61 + 67 + 71});
}

TEST_CASE("MLA, NSA and hyper-connections are counted by hand", "[unit][budget]") {
  ModelConfig model = small_model();
  model.moe = {};
  model.layers = 1;
  model.attention = attention_of(AttentionKind::mla, 4);
  model.attention.mla = {.query_rank = 24, .kv_rank = 32, .rope_dim = 8, .value_dim = 12};
  auto tensors = list_parameters(model);
  CHECK(numel(tensors, "blocks.0.attention.query_down.weight") == 24 * 64);
  CHECK(numel(tensors, "blocks.0.attention.query.weight") == 4 * 24 * 24);
  CHECK(numel(tensors, "blocks.0.attention.kv_down.weight") == 40 * 64);
  CHECK(numel(tensors, "blocks.0.attention.kv_up.weight") == 4 * 28 * 32);
  CHECK(numel(tensors, "blocks.0.attention.output.weight") == 64 * 48);
  model.attention.mla.query_rank = 0;
  tensors = list_parameters(model);
  CHECK(numel(tensors, "blocks.0.attention.query.weight") == 4 * 24 * 64);
  CHECK(numel(tensors, "blocks.0.attention.query_down.weight") == -1);

  model.attention = attention_of(AttentionKind::nsa, 2);
  model.attention.nsa.value_dim = 8;
  model.attention.nsa.compression_width = 20;
  tensors = list_parameters(model);
  CHECK(numel(tensors, "blocks.0.attention.qkv.weight") == (64 + 3 * 2 * 24) * 64);
  CHECK(numel(tensors, "blocks.0.attention.gate.weight") == 12 * 64);
  CHECK(numel(tensors, "blocks.0.attention.compression.key_position.weight") == 32 * 16);
  CHECK(numel(tensors, "blocks.0.attention.compression.key_up.weight") == 20 * 32 * 16);
  CHECK(numel(tensors, "blocks.0.attention.compression.value_down.weight") == 8 * 20);

  model.hyper_connections = 4;
  model = with_memory(model, 1.0);
  model.budget.rho.reset();
  model.dse->layers = {0};
  model.dse->rows_per_head = {10};
  tensors = list_parameters(model);
  CHECK(numel(tensors, "blocks.0.attention_connection.weight") == 24 * 256);
  CHECK(numel(tensors, "blocks.0.feed_forward_connection.bias") == 24);
  CHECK(numel(tensors, "blocks.0.memory.key.weight") == 4 * 64 * 64);
  CHECK(numel(tensors, "blocks.0.memory.value.weight") == 64 * 64);
  CHECK(numel(tensors, "blocks.0.memory.convolution.weight") == 256 * 4);
}

TEST_CASE("active parameters count the visited experts and the rows read", "[unit][budget]") {
  ModelConfig model = with_memory(small_model(), 1.0);
  model.budget.rho.reset();
  model.dse->rows_per_head = {100};
  const auto count = count_parameters(model);
  const std::int64_t expert = 3 * 48 * 64;
  CHECK(count.routed_experts == 3 * 32 * expert);
  CHECK(count.experts == 3 * 33 * expert);
  CHECK(count.total == count.embedding + count.experts + count.memory + count.other);
  CHECK(count.p_sparse() == 3 * 30 * expert + count.tables - 2 * 64);
}

TEST_CASE("the solver keeps the total and reaches rho", "[unit][budget]") {
  for (const double rho : {0.2, 0.4, 0.6, 0.75, 0.9, 1.0}) {
    const ModelConfig model = with_memory(small_model(), rho);
    const auto solution = plan_budget(model);
    CHECK(std::abs(solution.deviation) <= kBudgetTolerance);
    CHECK(std::abs(solution.rho - rho) <= 0.5 / 30 + 1e-12);
    CHECK(solution.experts == 2 + std::llround(rho * 30));
    CHECK(solution.model.moe.routed() == solution.experts);
    CHECK(solution.model.moe.active() == 2);
    CHECK(solution.model.moe.width() == 48);
    CHECK(solution.model.dse.has_value() == (rho < 1.0));
    CHECK_FALSE(solution.model.budget.rho);
    CHECK(plan_budget(solution.model).count.total == solution.count.total);
    // The same work per token, but for the memory's projections and the router's rows.
    const std::int64_t router_rows = 3 * 64 * (32 - solution.experts);
    const std::int64_t projections = solution.count.memory - solution.count.tables;
    const std::int64_t rows_read = rho < 1.0 ? 2 * 64 : 0;
    CHECK(solution.count.active - solution.full.active == projections + rows_read - router_rows);
    if (rho == 1.0) continue;
    // Neither smaller nor larger tables come nearer.
    const auto distance = [&](std::int64_t rows) {
      ModelConfig other = solution.model;
      other.dse = *model.dse;
      other.dse->rows_per_head = {rows};
      return std::abs(count_parameters(other).total - solution.full.total);
    };
    const std::int64_t rows = solution.model.dse->rows_per_head[0];
    CHECK(distance(rows) <= distance(rows - 1));
    CHECK(distance(rows) <= distance(rows + 1));
  }
}

TEST_CASE("the solver keeps experts in whole groups", "[unit][budget]") {
  ModelConfig model = with_memory(small_model(), 0.55);
  model.moe.groups = 4;
  model.moe.top_groups = 2;
  CHECK(plan_budget(model).experts == 20);  // 2 + 16.5 → 19 → 5 groups of 4
}

TEST_CASE("what cannot be solved says why", "[unit][budget]") {
  const auto problem = [](const ModelConfig& model) {
    return message_of<UserError>([&] { plan_budget(model); });
  };
  CHECK(problem(with_memory(small_model(), 0.99))
            .find("model.budget.rho: 0.99 keeps all 32 routed experts") == 0);
  ModelConfig model = with_memory(small_model(), 0.95);
  model.dse->width = 6400;
  CHECK(problem(model).find("less than the smallest memory has") != std::string::npos);
  model = with_memory(small_model(), 0.5);
  model.vocabulary = 0;
  CHECK(problem(model).find("model.vocabulary: must be known") == 0);
  model = small_model();
  model.moe.experts = 1'000'000'000'000;
  CHECK(problem(model).find("allowed: at most") != std::string::npos);
}

TEST_CASE("operations of a token follow the formula", "[unit][budget]") {
  ModelConfig model = small_model();
  model.moe = {};
  const double matrices = 4 * (64 * 128 + 64 * 64 + 3 * 160 * 64) + 64000;
  const double attention = 4 * 6 * 4 * (16 + 16) * 65 / 2.0;
  CHECK(flops_per_token(model, 64) == Approx(6 * matrices + attention));
  model.tie_embeddings = true;
  CHECK(flops_per_token(model, 64) == Approx(6 * matrices + attention));

  model.layers = 1;
  model.attention = attention_of(AttentionKind::nsa, 2);
  model.attention.nsa = {.compression_block = 2,
                         .compression_stride = 2,
                         .selection_block = 2,
                         .selected_blocks = 3,
                         .window = 3,
                         .value_dim = 8,
                         .compression_width = 5};
  // Positions 0 to 7: complete blocks of two 0 1 1 2 2 3 3 4, selected keys 1 2 3 4 5 6 5 6, window
  // 1 2 3 3 3 3 3 3.
  const double keys = (16 + 32 + 21) / 8.0;
  const double compression = (5 * 2 * 16 + 16 * 5 + 5 * 2 * 8 + 8 * 5) * 2 / 2.0;
  const double nsa_matrices =
      (64 + 6 * 24) * 64 + 12 * 64 + 64 * 32 + 3 * 160 * 64 + 64000 + compression;
  CHECK(flops_per_token(model, 8) ==
        Approx(6 * nsa_matrices + 6 * 4 * 24 * keys + 2 * 4 * 16 * 16 / 8.0));
}
