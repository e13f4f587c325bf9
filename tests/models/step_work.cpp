#include "models/step_work.h"

#include <algorithm>

#include "framework/core/error.h"
#include "framework/optim/matrices.h"
#include "models/budget.h"
#include "models/language_model.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::models;

namespace {

ModelConfig dense_model() {
  ModelConfig model;
  model.layers = 1;
  model.width = 8;
  model.ffn_width = 16;
  model.vocabulary = 32;
  model.attention.heads = 2;
  model.attention.kv_heads = 1;
  model.attention.head_dim = 4;
  return model;
}

ModelConfig sparse_model() {
  ModelConfig model = dense_model();
  model.layers = 3;
  model.moe.experts = 4;
  model.moe.top_k = 2;
  model.moe.expert_width = 6;
  model.moe.shared_experts = 1;
  model.moe.leading_dense = 1;
  model.moe.balance.expert_loss = 0.001;
  model.dse.emplace();
  model.dse->layers = {1};
  model.dse->heads = 2;
  model.dse->width = 16;
  model.dse->rows_per_head = {30};
  return model;
}

// Two sequences of six tokens: 12 · 8 values of the residual stream, 384 bytes in f32.
StepShape two_sequences() {
  StepShape shape;
  shape.tokens = 12;
  shape.sequence_length = 6;
  return shape;
}

using List = std::vector<OperatorWork>;

OperatorWork find(const List& list, Region region, const std::string& name) {
  const auto at = std::find_if(list.begin(), list.end(), [&](const OperatorWork& w) {
    return w.region == region && w.name == name;
  });
  return at == list.end() ? OperatorWork{region, name, -1, -1} : *at;
}

double bytes(const List& list, Region region, const std::string& name) {
  return find(list, region, name).bytes;
}

double flops(const List& list, Region region, const std::string& name) {
  return find(list, region, name).flops;
}

// Of forward and backward, without what is formed again.
double model_flops(const List& list) {
  double sum = 0;
  for (const OperatorWork& w : list) {
    if (w.region != Region::optimizer) sum += w.flops - w.repeated;
  }
  return sum;
}

double bytes_made_again(const List& list, Region region) {
  double sum = 0;
  for (const OperatorWork& w : list) {
    const bool again = w.name.find(" again") != std::string::npos;
    if (w.region == region && again) sum += w.bytes;
  }
  return sum;
}

}  // namespace

TEST_CASE("the work of a dense step is counted by hand", "[unit][step_work]") {
  const List work = step_work(dense_model(), two_sequences());
  CHECK(flops(work, Region::attention, "qkv forward") == 2 * 12 * 16 * 8);
  CHECK(bytes(work, Region::attention, "qkv forward") == 4 * (12 * 8 + 16 * 8 + 12 * 16));
  CHECK(bytes(work, Region::attention, "qkv input gradient") == 4 * (12 * 8 + 16 * 8 + 12 * 16));
  CHECK(bytes(work, Region::attention, "qkv weight gradient") == 4 * (12 * 8 + 16 * 8 + 12 * 16));
  CHECK(bytes(work, Region::attention, "rotary positions forward") == 2 * 12 * 16 * 4);
  // 3.5 keys in the mean; per key two products of 4 wide heads
  CHECK(flops(work, Region::attention, "attention forward") == 12 * 2 * 3.5 * 2 * 2 * 4);
  CHECK(flops(work, Region::attention, "attention backward") == 12 * 2 * 3.5 * 5 * 2 * 4);
  CHECK(find(work, Region::attention, "attention backward").repeated == 12 * 2 * 3.5 * 2 * 4);
  // q, k, v, o and a statistic of each row and head
  CHECK(bytes(work, Region::attention, "attention forward") == 4 * 12 * (16 + 8 + 2));
  CHECK(bytes(work, Region::attention, "attention backward") == 4 * 12 * (2 * 16 + 2 * 8 + 2));

  CHECK(bytes(work, Region::other, "embedding forward") == 2 * 384);
  CHECK(bytes(work, Region::other, "embedding backward") == 384 + 4 * 32 * 8);
  CHECK(bytes(work, Region::other, "rms_norm forward") == (2 + 2) * 384);
  CHECK(bytes(work, Region::other, "rms_norm backward") == (4 + 3) * 384);
  CHECK(bytes(work, Region::other, "add_rms_norm forward") == 4 * 384);

  CHECK(flops(work, Region::feed_forward, "gate_up weight gradient") == 2 * 12 * 32 * 8);
  CHECK(bytes(work, Region::feed_forward, "swiglu forward") == 3 * 12 * 16 * 4);
  CHECK(bytes(work, Region::feed_forward, "swiglu backward") == 5 * 12 * 16 * 4);
  CHECK(bytes(work, Region::feed_forward, "add forward") == 3 * 384);
  CHECK(bytes(work, Region::vocabulary, "softmax forward") == 2 * 12 * 32 * 4);

  const std::int64_t parameters = 2 * 32 * 8 + 3 * 8 + 16 * 8 + 8 * 8 + 32 * 8 + 16 * 8;
  CHECK(bytes(work, Region::optimizer, "gradient norm") == 4 * parameters);
  CHECK(bytes(work, Region::optimizer, "adamw") == 28 * parameters);
}

TEST_CASE("bf16 halves activations and adds rounded weights", "[unit][step_work]") {
  StepShape shape = two_sequences();
  shape.element = 2;
  shape.turns_in_place = true;
  const List work = step_work(dense_model(), shape);
  CHECK(bytes(work, Region::other, "add_rms_norm backward") == 2 * 384);
  CHECK(bytes(work, Region::attention, "rotary positions backward") == 2 * 12 * 12 * 2);
  const double in_out = 2 * (12 * 8 + 12 * 16);
  CHECK(bytes(work, Region::attention, "qkv input gradient") == in_out + 2 * 16 * 8);
  CHECK(bytes(work, Region::attention, "qkv weight gradient") == in_out + 4 * 16 * 8);
  CHECK(bytes(work, Region::optimizer, "adamw") == 30 * 1088 + 28 * 24);
  shape.moment = 2;
  CHECK(bytes(step_work(dense_model(), shape), Region::optimizer, "adamw") == 22 * 1088 + 28 * 24);
}

TEST_CASE("the work of experts and a memory is counted by hand", "[unit][step_work]") {
  ModelConfig model = sparse_model();
  StepShape shape = two_sequences();
  shape.touched_rows = 20;
  SECTION("at once") {}
  SECTION("in micro-batches, which a memory's rows are shared out to") { shape.micro_batches = 2; }
  const List work = step_work(model, shape);
  const auto n = static_cast<double>(shape.micro_batches);
  const double layers = 2 * n;  // of experts
  const Region experts = Region::experts;
  CHECK(flops(work, experts, "router forward") == layers * 2 * 12 * 4 * 8);
  CHECK(bytes(work, experts, "router input gradient") ==
        layers * (4 * 12 * 4 + 4 * 4 * 8 + 2 * 384));
  CHECK(bytes(work, experts, "route forward") == layers * 2 * 12 * 4 * 4);
  CHECK(bytes(work, experts, "balance losses backward") == layers * 12 * 4 * 4);
  CHECK(bytes(work, experts, "permute forward") == layers * (1 + 2) * 384);
  CHECK(bytes(work, experts, "permute backward") == layers * (2 + 2) * 384);
  CHECK(flops(work, experts, "experts gate_up forward") == layers * 2 * 24 * 12 * 8);
  CHECK(bytes(work, experts, "experts gate_up forward") ==
        layers * 4 * (24 * 8 + 4 * 12 * 8 + 24 * 12));
  // written by the first micro-batch, read and written by the others
  CHECK(bytes(work, experts, "experts gate_up weight gradient") ==
        2 * 4 * (n * (24 * 8 + 24 * 12) + (2 * n - 1) * 4 * 12 * 8));
  CHECK(bytes(work, experts, "swiglu backward") == layers * 5 * 4 * 6 * (24 + 12));
  CHECK(bytes(work, experts, "combine forward") == layers * (2 + 2) * 384);
  CHECK(bytes(work, experts, "combine backward") == layers * (1 + 2) * 384);

  // two orders of two heads: 4 rows of 4 values a token, with ids of 8 bytes
  const double values = 4 * 12 * 16, ids = 8 * 12 * 4, rows = 20 * 4 * 4;
  CHECK(bytes(work, Region::other, "addresses") == n * (4 * 12 + ids));
  CHECK(bytes(work, Region::memory, "rows forward") == n * (values + ids) + rows);
  CHECK(bytes(work, Region::memory, "rows backward") == n * (values + ids) + rows + 8 * 20);
  CHECK(bytes(work, Region::memory, "dse_gate backward") == n * 8 * 384);
  CHECK(bytes(work, Region::memory, "convolution forward") == n * 2 * 384);
  CHECK(flops(work, Region::memory, "value forward") == n * 2 * 12 * 8 * 16);
  CHECK(bytes(work, Region::optimizer, "row_adam") == 20 * (28 * 4 + 8 + 8));

  shape.reads_in_place = true;
  CHECK(bytes(step_work(model, shape), Region::optimizer, "rows backward") ==
        bytes(work, Region::memory, "rows backward"));
}

TEST_CASE("products agree with the budget's, whatever is made again", "[unit][step_work]") {
  ModelConfig model = sparse_model();
  SECTION("experts and a memory") {}
  SECTION("dense") { model = dense_model(); }
  SECTION("tied, segmented, without shared experts") {
    model.tie_embeddings = true;
    model.moe.segmentation = 2;
    model.moe.shared_experts = 0;
    model.dse->convolution_kernel = 0;
  }
  StepShape shape = two_sequences();
  shape.micro_batches = 3;
  const double expected = 3 * 12 * flops_per_token(model, 6);
  for (const Recompute mode : {Recompute::none, Recompute::selective, Recompute::full}) {
    shape.recompute = mode;
    CHECK(model_flops(step_work(model, shape)) == Approx(expected).epsilon(1e-12));
  }
}

TEST_CASE("recompute makes passes or blocks again", "[unit][step_work]") {
  ModelConfig model = dense_model();
  StepShape shape = two_sequences();
  shape.recompute = Recompute::selective;
  List work = step_work(model, shape);
  CHECK(bytes_made_again(work, Region::attention) == 2 * 384);
  CHECK(bytes_made_again(work, Region::feed_forward) == 2 * 384 + 3 * 12 * 16 * 4);
  CHECK(bytes_made_again(work, Region::other) == 0);

  shape.recompute = Recompute::full;
  work = step_work(model, shape);
  CHECK(bytes_made_again(work, Region::other) == 2 * 384 + 4 * 384);
  CHECK(flops(work, Region::attention, "attention again") ==
        flops(work, Region::attention, "attention forward"));
  CHECK(flops(work, Region::feed_forward, "down again") ==
        flops(work, Region::feed_forward, "down forward"));
  CHECK(bytes_made_again(work, Region::vocabulary) == 0);

  model = sparse_model();
  CHECK(bytes(step_work(model, shape), Region::memory, "rows again") == -1);
  shape.recompute = Recompute::selective;
  work = step_work(model, shape);
  CHECK(bytes(work, Region::experts, "permute again") ==
        bytes(work, Region::experts, "permute forward"));
  CHECK(bytes(work, Region::experts, "swiglu again") ==
        bytes(work, Region::experts, "swiglu forward"));
}

TEST_CASE("Muon's products are those of the matrices that are built", "[unit][step_work]") {
  const ModelConfig model = sparse_model();
  ParameterStore store(1, DType::f32);
  std::vector<std::int32_t> ids(32);
  const LanguageModel built(model, store, {Tensor::from(ids, {32}), 32, 0},
                            parallel::Communicator());
  double products = 0, elements = 0;
  for (const auto& p : store.parameters()) {
    if (p->kind != ParameterKind::matrix && p->kind != ParameterKind::expert) continue;
    for (const MatrixOf& m : matrices_of(*p)) {
      const auto rows = static_cast<double>(m.rows), cols = static_cast<double>(m.cols);
      const double small = std::min(rows, cols);
      products += 5 * (4 * small * rows * cols + 2 * small * small * small);
      elements += rows * cols;
    }
  }
  StepShape shape = two_sequences();
  shape.newton_schulz = 5;
  CHECK(flops(step_work(model, shape), Region::optimizer, "muon") == Approx(products));
  CHECK(bytes(step_work(model, shape), Region::optimizer, "muon") == 20 * elements);
  shape.optimizer_ranks = 2;
  CHECK(flops(step_work(model, shape), Region::optimizer, "muon") == Approx(products / 2));
  CHECK(bytes(step_work(model, shape), Region::optimizer, "muon") == 10 * elements);
}

TEST_CASE("models that cannot be trained have no step", "[unit][step_work]") {
  ModelConfig model = dense_model();
  model.attention.kind = AttentionKind::nsa;
  CHECK_THROWS_AS(step_work(model, two_sequences()), ArgumentError);
}
