// What the budget lists is what is built, tensor by tensor.

#include "models/budget_solver.h"
#include "models/language_model.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::models;

namespace {

constexpr std::int32_t kVocabulary = 50;

ModelConfig sparse_model() {
  ModelConfig model;
  model.layers = 3;
  model.width = 16;
  model.ffn_width = 24;
  model.vocabulary = kVocabulary;
  model.attention.heads = 4;
  model.attention.kv_heads = 2;
  model.attention.head_dim = 6;
  model.moe.experts = 8;
  model.moe.top_k = 1;
  model.moe.segmentation = 2;
  model.moe.expert_width = 32;
  model.moe.shared_experts = 1;
  model.moe.leading_dense = 1;
  model.dse.emplace();
  model.dse->layers = {0, 2};
  model.dse->heads = 2;
  model.dse->width = 16;
  model.dse->rows_per_head = {30, 40};
  return model;
}

std::vector<std::string> described(const ParameterStore& store) {
  std::vector<std::string> lines;
  for (const auto& p : store.parameters())
    lines.push_back(fmt::format("{} {} {}", p->name, name_of(p->kind), p->global_shape));
  return lines;
}

std::vector<std::string> described(const std::vector<CountedTensor>& tensors) {
  std::vector<std::string> lines;
  for (const auto& t : tensors)
    lines.push_back(fmt::format("{} {} {}", t.name, name_of(t.kind), t.shape));
  return lines;
}

void check(const ModelConfig& model) {
  std::vector<std::int32_t> map(kVocabulary);
  for (std::int32_t i = 0; i < kVocabulary; ++i) map[i] = i;
  ParameterStore store(1, DType::f32);
  const LanguageModel built(model, store, {Tensor::from(map, {kVocabulary}), kVocabulary, 2},
                            parallel::Communicator());
  CHECK(described(store) == described(list_parameters(model)));
}

}  // namespace

TEST_CASE("the built model has the listed tensors in the listed order", "[unit][budget]") {
  ModelConfig model = sparse_model();
  SECTION("experts and memories") {}
  SECTION("dense") {
    model.moe = {};
    model.dse.reset();
  }
  SECTION("tied, with biases") {
    model.tie_embeddings = true;
    model.dse->bias = true;
  }
  SECTION("without convolution and shared experts") {
    model.dse->convolution_kernel = 0;
    model.moe.shared_experts = 0;
  }
  SECTION("from rho") {
    model.dse->rows_per_head.clear();
    model.budget.rho = 0.5;
    model = solve_budget(model);
    REQUIRE(model.moe.experts == 9);
  }
  SECTION("rho 1") {
    model.dse->rows_per_head.clear();
    model.budget.rho = 1.0;
    model = solve_budget(model);
    REQUIRE_FALSE(model.dse);
  }
  check(model);
}
