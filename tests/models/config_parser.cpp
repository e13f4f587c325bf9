#include "models/config_parser.h"

#include "framework/config/load.h"
#include "framework/core/error.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::models;

namespace {

const char* const kBase = R"(
layers: 4
width: 64
ffn_width: 128
vocabulary: 1000
attention: {heads: 4, kv_heads: 2}
moe: {experts: 8, top_k: 2, shared_experts: 1, expert_width: 32, segmentation: 2, leading_dense: 1}
dse: {layers: [1, 2], orders: [2, 3], heads: 4, width: 64, rows_per_head: [100]}
)";

ModelConfig parse(const std::vector<std::string>& overrides) {
  config::Value root = config::parse_yaml(kBase, "m.yaml");
  for (const auto& assignment : overrides) config::apply_override(root, assignment);
  return config::read<ModelConfig>(root, bind);
}

std::string problem(const std::vector<std::string>& overrides) {
  return testing::message_of<UserError>([&] { parse(overrides); });
}

}  // namespace

TEST_CASE("a model section fills every field that another one gives", "[unit][config]") {
  const ModelConfig model = parse({});
  CHECK(model.attention.head_dim == 16);
  CHECK(model.attention.kv_heads == 2);
  CHECK(model.moe.routed() == 16);
  CHECK(model.moe.active() == 4);
  CHECK(model.moe.width() == 16);
  CHECK(model.dse->row_width() == 8);
  CHECK_FALSE(model.budget.rho);
  CHECK(parse({"attention.kv_heads=0"}).attention.kv_heads == 4);
  CHECK_FALSE(parse({"dse=null"}).dse);
  CHECK_FALSE(parse({"dse=~"}).dse);
}

TEST_CASE("each rule between keys of a model is named", "[unit][config]") {
  const struct {
    std::vector<std::string> overrides;
    const char* message;
  } cases[] = {
      {{"attention.heads=5", "attention.kv_heads=5"},
       "--set: attention.heads: must divide width 64 when head_dim is not given; found 5"},
      {{"attention.kv_heads=3"}, "--set: attention.kv_heads: must divide heads 4; found 3"},
      {{"attention.head_dim=7"},
       "--set: attention.head_dim: must be even, as rotary positions turn pairs; found 7"},
      {{"attention.kind=mla"},
       "m.yaml:6:1: attention.mla.kv_rank: must be above 0 for kind mla; found 0"},
      {{"attention.kind=mla", "attention.mla.kv_rank=8", "attention.mla.rope_dim=3"},
       "--set: attention.mla.rope_dim: must be even and above 0 for kind mla; found 3"},
      {{"attention.nsa.compression_block=40"},
       "--set: attention.nsa.compression_block: must be a multiple of compression_stride 16; found "
       "compression_block 40"},
      {{"attention.nsa.selection_block=16"},
       "--set: attention.nsa.selection_block: must be at least compression_block 32; found 16"},
      {{"moe.top_k=9"}, "--set: moe.top_k: must be at most moe.experts 8; found 9"},
      {{"moe.segmentation=3"}, "--set: moe.segmentation: must divide moe.expert_width 32; found 3"},
      {{"moe.expert_width=0"},
       "--set: moe.expert_width: must be above 0 when there are experts; found 0"},
      {{"moe.leading_dense=4"},
       "--set: moe.leading_dense: must be below layers 4, so that a block has experts; found 4"},
      {{"ffn_width=0"},
       "--set: ffn_width: must be above 0 for moe.leading_dense 1 blocks; found 0"},
      {{"ffn_width=0", "moe=null"},
       "--set: ffn_width: must be above 0 when moe.experts is 0; found 0"},
      {{"moe.groups=3"}, "--set: moe.groups: must divide the 16 routed experts; found 3"},
      {{"moe.groups=4", "moe.top_groups=5"},
       "--set: moe.top_groups: must be at most moe.groups 4; found 5"},
      {{"moe.groups=8", "moe.top_groups=1"},
       "--set: moe.top_groups: 1 groups of 2 experts must hold the 4 experts that a token visits"},
      {{"moe.groups=16", "moe.top_groups=4", "moe.group_score=top2"},
       "--set: moe.group_score: top2 needs at least 2 experts in a group; found 1"},
      {{"moe.balance.device_loss=0.1"},
       "--set: moe.balance.device_loss: needs moe.groups above 1; found 0.1 with 1 group"},
      {{"dse.layers=[2, 1]"},
       "--set: dse.layers: must be ascending block numbers from 0 to 3; found [2, 1]"},
      {{"dse.layers=[1, 4]"},
       "--set: dse.layers: must be ascending block numbers from 0 to 3; found [1, 4]"},
      {{"dse.orders=[2, 4]"},
       "--set: dse.orders: must be consecutive, ascending and at least 2; found [2, 4]"},
      {{"dse.orders=[1, 2]"},
       "--set: dse.orders: element 0: out of range; found 1; allowed: [2, 16]"},
      {{"dse.width=60"},
       "--set: dse.width: must be a multiple of orders x heads = 2 x 4; found 60"},
      {{"dse.rows_per_head=[5, 6, 7]"},
       "--set: dse.rows_per_head: must be one number for all orders or one for each of the 2 "
       "orders (or give "
       "budget.rho); found 3 numbers"},
      {{"dse.pad_id=1000"}, "--set: dse.pad_id: must be below vocabulary 1000; found 1000"},
      {{"budget.rho=0.5"},
       "m.yaml:8:75: dse.rows_per_head: must be absent, because budget.rho sets the table sizes"},
      {{"budget.rho=1.5"}, "--set: budget.rho: out of range; found 1.5; allowed: (0, 1]"},
      {{"budget.rho=0"}, "--set: budget.rho: out of range; found 0; allowed: (0, 1]"},
      {{"budget.rho=0.5", "dse=null"},
       "--set: budget.rho: below 1 needs a memory: dse is absent; found 0.5"},
      {{"budget.rho=1.0", "moe=null", "dse=null"},
       "--set: budget.rho: needs experts: moe.experts is 0"},
      {{"dse.order=[2]"}, "--set: dse.order: unknown key; did you mean orders"},
  };
  for (const auto& c : cases) CHECK(problem(c.overrides) == c.message);
}

TEST_CASE("a model that a program made obeys the same rules", "[unit][config]") {
  ModelConfig model = parse({});
  CHECK_NOTHROW(validate(model));
  model.moe.top_k = 9;
  CHECK(testing::message_of<UserError>([&] { validate(model); }) ==
        "model.moe.top_k: must be at most moe.experts 8; found 9");
}
