#include "models/step_work.h"

#include <algorithm>
#include <map>

#include "framework/core/error.h"
#include "models/optimizer_work.h"

namespace fulcrum::models {
namespace {

// How often an operator crosses memory with a tensor of its width: inputs and outputs of forward,
// and of backward. A gradient that is there already is read and written.
struct Passes {
  const char* name;
  double forward, backward;
};
constexpr Passes kNorm{"rms_norm", 2, 4};         // x, y | g, x, dx, dx: after the residual's
constexpr Passes kLastNorm{"rms_norm", 2, 3};     // x, y | g, x, dx
constexpr Passes kAddNorm{"add_rms_norm", 4, 4};  // a, b, sum, y | g, sum, through, d: of both
constexpr Passes kAdd{"add", 3, 0};               // a, b, y | the gradient passes through
constexpr Passes kTurn{"rotary positions", 2, 2};
constexpr Passes kSwiglu{"swiglu", 3, 5};  // gate, up, y | gate, up, g, dgate, dup
constexpr Passes kEmbedding{"embedding", 2, 1};
constexpr Passes kSoftmax{"softmax", 2, 0};          // logits become their gradient in forward
constexpr Passes kBias{"add_bias", 2, 1};            // x, y | g
constexpr Passes kGate{"dse_gate", 4, 8};            // h, k, v, y | g, h, k, v, dh, dh, dk, dv
constexpr Passes kConvolution{"convolution", 2, 3};  // x, y | g, x, dx
// Over the scores of all experts:
constexpr Passes kRoute{"route", 2, 2};
constexpr Passes kNormalize{"normalize_scores", 2, 3};
constexpr Passes kBalance{"balance losses", 1, 1};  // each

constexpr double kIndexBytes = 8;  // of a table's row
constexpr double kSlotBytes = 20;  // of a slot in make_permutation: expert, row and source

struct Product {
  std::string name;
  double rows, out, in;
  double groups = 1;         // stacked matrices that share the rows
  bool adds = false;         // to a gradient of the input that is there already
  bool f32_weights = false;  // and results
};

class Counter {
 public:
  Counter(const ModelConfig& model, const StepShape& shape)
      : model_(model),
        shape_(shape),
        tokens_(static_cast<double>(shape.tokens)),
        width_(static_cast<double>(model.width)),
        element_(static_cast<double>(shape.element)),
        row_(element_ * tokens_ * width_) {}

  std::vector<OperatorWork> count() {
    times_ = static_cast<double>(shape_.micro_batches);
    elementwise(Region::other, kEmbedding, row_);
    for (std::int64_t i = 0; i < model_.layers; ++i) block(i);
    elementwise(Region::other, kLastNorm, row_);
    const auto vocabulary = static_cast<double>(model_.vocabulary);
    product(Region::vocabulary, {"head", tokens_, vocabulary, width_});
    elementwise(Region::vocabulary, kSoftmax, element_ * tokens_ * vocabulary);
    times_ = 1;
    // A gradient that the head shares is there already.
    if (!model_.tie_embeddings) {
      add(Region::other, "embedding backward", 0, 4 * vocabulary * width_);
    }
    for (const OperatorWork& w : optimizer_work(model_, shape_)) {
      add(w.region, w.name, w.flops, w.bytes);
    }
    return std::move(work_);
  }

 private:
  // One execution, of which there are times_.
  void add(Region region, const std::string& name, double flops, double bytes,
           double repeated = 0) {
    if (flops == 0 && bytes == 0) return;
    const auto [at, fresh] = index_.try_emplace({region, name}, work_.size());
    if (fresh) work_.push_back({region, name});
    OperatorWork& work = work_[at->second];
    work.flops += times_ * flops;
    work.bytes += times_ * bytes;
    work.repeated += times_ * repeated;
  }
  void forward(Region region, const std::string& name, double flops, double bytes) {
    add(region, name + " forward", flops, bytes);
    if (in_block_ && shape_.recompute == Recompute::full) {
      add(region, name + " again", flops, bytes, flops);
    }
  }
  // bytes: of the tensor that the passes are counted in.
  void elementwise(Region region, const Passes& passes, double bytes) {
    forward(region, passes.name, 0, passes.forward * bytes);
    if (passes.backward == 0) return;
    add(region, passes.name + std::string(" backward"), 0, passes.backward * bytes);
  }
  // What drop_until_backward (autograd/recompute.h) makes again.
  void dropped(Region region, const Passes& passes, double bytes) {
    if (shape_.recompute != Recompute::selective) return;
    add(region, passes.name + std::string(" again"), 0, passes.forward * bytes);
  }

  void product(Region region, const Product& p) {
    const double flops = 2 * p.rows * p.out * p.in;
    const double weights = p.groups * p.out * p.in;
    const double x = p.rows * p.in * element_;
    const double y = p.rows * p.out * (p.f32_weights ? 4 : element_);
    const double w = weights * (p.f32_weights ? 4 : element_);
    // f32; the first micro-batch writes it, the others add to it
    const double dw = 4 * weights * (2 - 1 / static_cast<double>(shape_.micro_batches));
    forward(region, p.name, flops, x + w + y);
    add(region, p.name + " input gradient", flops, y + w + (p.adds ? 2 : 1) * x);
    add(region, p.name + " weight gradient", flops, x + y + dw);
  }

  void block(std::int64_t layer) {
    const auto layers = model_.dse ? model_.dse->layers : std::vector<std::int64_t>();
    const bool memory_here = std::find(layers.begin(), layers.end(), layer) != layers.end();
    if (memory_here) memory_rows();
    in_block_ = true;
    if (memory_here) {
      memory();
    } else {
      elementwise(Region::other, kNorm, row_);
    }
    attention();
    elementwise(Region::other, kAddNorm, row_);
    const bool sparse = model_.moe.experts > 0 && layer >= model_.moe.leading_dense;
    if (sparse) {
      experts();
    } else {
      gated(Region::feed_forward, "", static_cast<double>(model_.ffn_width));
    }
    const Region region = sparse ? Region::experts : Region::feed_forward;
    dropped(region, kNorm, row_);
    elementwise(region, kAdd, row_);
    in_block_ = false;
  }

  void attention() {
    const AttentionConfig& a = model_.attention;
    const auto heads = static_cast<double>(a.heads);
    const auto kv_heads = static_cast<double>(a.kv_heads);
    const auto dim = static_cast<double>(a.head_dim);
    const double turned = heads + (shape_.turns_in_place ? 1 : 2) * kv_heads;
    const Region region = Region::attention;
    product(region, {"qkv", tokens_, (heads + 2 * kv_heads) * dim, width_});
    elementwise(region, kTurn, element_ * tokens_ * turned * dim);
    // Two products of causal scores and values; backward has four, and forms the scores again.
    const double keys = (static_cast<double>(shape_.sequence_length) + 1) / 2;
    const double products = 4 * heads * dim * keys * tokens_;
    const double inputs = tokens_ * (heads + 2 * kv_heads) * dim * element_;
    const double output = tokens_ * heads * dim * element_;
    const double log_sum = tokens_ * heads * 4;
    forward(region, "attention", products, inputs + output + log_sum);
    add(region, "attention backward", 2.5 * products, 2 * inputs + 2 * output + log_sum,
        0.5 * products);
    product(region, {"output", tokens_, width_, heads * dim});
    dropped(region, kNorm, row_);
  }

  void gated(Region region, const std::string& prefix, double hidden) {
    product(region, {prefix + "gate_up", tokens_, 2 * hidden, width_});
    elementwise(region, kSwiglu, element_ * tokens_ * hidden);
    product(region, {prefix + "down", tokens_, width_, hidden});
    dropped(region, kSwiglu, element_ * tokens_ * hidden);
  }

  void experts() {
    const MoeConfig& moe = model_.moe;
    const MoeConfig::Balance& balance = moe.balance;
    const auto routed = static_cast<double>(moe.routed());
    const auto k = static_cast<double>(moe.active());
    const auto hidden = static_cast<double>(moe.width());
    const double slots = tokens_ * k;
    const double scores = 4 * tokens_ * routed;
    const bool shared = moe.shared_experts > 0;
    const Region region = Region::experts;
    // In backward the shared experts write the tokens' gradient, permute and the router add to it.
    product(region, {"router", tokens_, routed, width_, 1, true, true});
    elementwise(region, kRoute, scores);
    const int by_load =
        (balance.expert_loss > 0) + (balance.device_loss > 0) + (balance.communication_loss > 0);
    if (by_load > 0 && moe.score == RouterScore::sigmoid) {
      elementwise(region, kNormalize, scores);
    }
    const int losses = by_load + (balance.sequence_loss > 0) + (balance.z_loss > 0);
    elementwise(region, kBalance, losses * scores);
    forward(region, "make_permutation", 0, kSlotBytes * slots);
    const Passes permute{"permute", 1 + k, 1 + k + (shared ? 1 : 0)};
    elementwise(region, permute, row_);
    product(region, {"experts gate_up", slots, 2 * hidden, width_, routed});
    dropped(region, permute, row_);
    elementwise(region, kSwiglu, element_ * slots * hidden);
    product(region, {"experts down", slots, width_, hidden, routed});
    dropped(region, kSwiglu, element_ * slots * hidden);
    if (shared) gated(region, "shared ", static_cast<double>(moe.shared_experts) * hidden);
    elementwise(region, {"combine", 1 + k + (shared ? 1 : 0), 1 + k}, row_);
  }

  // Addresses and rows, which a block does not make again; a share of the step's rows each time.
  void memory_rows() {
    const DseConfig& dse = *model_.dse;
    const double values = tokens_ * static_cast<double>(dse.width) * element_;
    const double indices = kIndexBytes * tokens_ * static_cast<double>(dse.width / dse.row_width());
    const double touched = shape_.touched_rows / (static_cast<double>(dse.layers.size()) * times_);
    const double rows = 4 * touched * static_cast<double>(dse.row_width());
    add(Region::other, "addresses", 0, 4 * tokens_ + indices);
    add(Region::memory, "rows forward", 0, rows + indices + values);
    // With the table in place, duplicates are merged for the gradient's norm.
    add(shape_.reads_in_place ? Region::optimizer : Region::memory, "rows backward", 0,
        indices + values + kIndexBytes * touched + rows);
  }

  void memory() {
    const DseConfig& dse = *model_.dse;
    const auto in = static_cast<double>(dse.width);
    const Region region = Region::memory;
    product(region, {"key", tokens_, width_, in, 1, true});  // backward comes to it last
    product(region, {"value", tokens_, width_, in});
    if (dse.bias) elementwise(region, kBias, 2 * row_);
    elementwise(region, kGate, row_);
    if (dse.convolution_kernel > 0) elementwise(region, kConvolution, row_);
    elementwise(region, kAddNorm, row_);
  }

  const ModelConfig& model_;
  const StepShape& shape_;
  const double tokens_, width_, element_;
  const double row_;  // bytes of the residual stream
  double times_ = 1;
  bool in_block_ = false;
  std::map<std::pair<Region, std::string>, std::size_t> index_;
  std::vector<OperatorWork> work_;
};

}  // namespace

std::vector<OperatorWork> step_work(const ModelConfig& model, const StepShape& shape) {
  FULCRUM_REQUIRE(model.attention.kind == AttentionKind::full && model.hyper_connections == 1,
                  "step_work: counts full attention and one residual stream; got attention kind "
                  "{} and {} streams",
                  static_cast<int>(model.attention.kind), model.hyper_connections);
  FULCRUM_REQUIRE(shape.tokens > 0 && shape.micro_batches > 0, "step_work: no tokens");
  return Counter(model, shape).count();
}

}  // namespace fulcrum::models
