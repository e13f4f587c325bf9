#include "models/moe.h"

#include "framework/ops/balance_loss.h"
#include "framework/ops/expert_load.h"
#include "framework/ops/grouped_matmul.h"
#include "framework/ops/matmul.h"
#include "framework/ops/permute.h"
#include "framework/ops/router.h"
#include "framework/ops/sequence_share.h"
#include "framework/ops/swiglu.h"
#include "models/initialization.h"

namespace fulcrum::models {
namespace {

ops::RouterOptions router_options(const MoeConfig& config, const ForwardPass& pass) {
  ops::RouterOptions options;
  options.sigmoid = config.score == RouterScore::sigmoid;
  options.top_k = config.active();
  options.renormalize = config.renormalize;
  options.route_scale = config.route_scale;
  options.groups = config.groups;
  options.top_groups = config.top_groups;
  options.group_top2 = config.group_score == GroupScore::top2;
  if (pass.training) options.capacity_factor = config.capacity_factor;
  if (options.capacity_factor > 0.0 && config.undropped_sequences > 0.0) {
    options.keep = ops::tokens_of_share(pass.batch.ids, config.undropped_sequences);
  }
  return options;
}

}  // namespace

MoeFeedForward::MoeFeedForward(ParameterStore& store, const std::string& name,
                               const ModelConfig& config)
    : config_(config.moe),
      router_(store, name + ".router", config.width, config_.routed(), config.init_std,
              ParameterKind::router),
      gate_up_(&store.create(name + ".experts.gate_up.weight", ParameterKind::expert,
                             {config_.routed(), 2 * config_.width(), config.width},
                             Initializer::normal(config.init_std),
                             {config_.width(), config_.width()})),
      down_(&store.create(name + ".experts.down.weight", ParameterKind::expert,
                          {config_.routed(), config.width, config_.width()},
                          Initializer::normal(residual_std(config)))),
      load_(Tensor::zeros({config_.routed()}, DType::i64, store.device())) {
  if (config_.shared_experts > 0) {
    shared_.emplace(store, name + ".shared", config, config_.shared_experts * config_.width());
  }
  if (config_.balance.bias_rate > 0.0) {
    bias_ = Tensor::zeros({config_.routed()}, DType::f32, store.device());
    store.create_buffer(name + ".router.bias", bias_);
  }
}

Tensor MoeFeedForward::forward(const Tensor& x, ForwardPass& pass) {
  const Tensor tokens = x.reshape({-1, x.dim(-1)});
  // always in f32: a rounded score can send a token elsewhere
  const Tensor logits = ops::linear(tokens, router_.weight().value, ops::MatmulPrecision::f32);
  const ops::Routing routing = ops::route(logits, bias_, router_options(config_, pass));
  if (pass.training) {
    const bool again = pass.first_run && pass.first_run->done;
    if (!again) ops::accumulate_counts(load_, routing.counts);
    pass.dropped_slots.push_back(routing.dropped);
    add_balance_losses(logits, routing, x.dim(0), pass);
  }

  const ops::Permutation order = ops::make_permutation(routing.experts, config_.routed());
  const bool drop = pass.recompute == Recompute::selective;
  const Tensor rows = ops::permute(tokens, order);
  const Tensor gate_up = ops::grouped_linear(rows, gate_up_->value, order.offsets);
  if (drop) drop_until_backward(rows, [=] { return ops::permute(tokens, order); });
  const Tensor hidden = ops::weighted_swiglu(gate_up, routing.weights, order);
  const Tensor outputs = ops::grouped_linear(hidden, down_->value, order.offsets);
  if (drop) {
    drop_until_backward(hidden,
                        [=] { return ops::weighted_swiglu(gate_up, routing.weights, order); });
  }
  const Tensor shared = shared_ ? (*shared_)(tokens, pass) : Tensor();
  return ops::combine(outputs, order, shared).reshape(x.shape());
}

// Loss terms of the global batch use counts over all ranks and the step's micro-batches so far:
// with one micro-batch that is the whole batch. Every term is weighted by this micro-batch's share
// of the step's tokens.
void MoeFeedForward::add_balance_losses(const Tensor& logits, const ops::Routing& routing,
                                        std::int64_t sequences, ForwardPass& pass) {
  const MoeConfig::Balance& balance = config_.balance;
  const bool by_load =
      balance.expert_loss > 0.0 || balance.device_loss > 0.0 || balance.communication_loss > 0.0;
  if (!by_load && balance.sequence_loss == 0.0 && balance.z_loss == 0.0) return;

  const bool global = balance.scope == BalanceScope::global_batch;
  const std::int64_t tokens = global ? pass.global_tokens : logits.dim(0);
  const double share = static_cast<double>(tokens) * pass.token_weight;
  const bool sigmoid = config_.score == RouterScore::sigmoid;
  if (by_load) {
    Tensor groups;
    if (balance.communication_loss > 0.0) {
      groups = ops::group_token_counts(routing.experts, config_.routed(), config_.groups);
    }
    LoadCounts counted{routing.counts, groups, 1.0};
    if (global) counted = statistics_.add(routing.counts, groups, pass);
    const double weight = share * counted.scale;
    const Tensor scores = sigmoid ? ops::normalize_scores(routing.scores) : routing.scores;
    if (balance.expert_loss > 0.0) {
      pass.auxiliary.push_back(ops::expert_balance_loss(scores, counted.experts, config_.active(),
                                                        tokens, weight * balance.expert_loss));
    }
    if (balance.device_loss > 0.0) {
      pass.auxiliary.push_back(ops::device_balance_loss(scores, counted.experts, config_.active(),
                                                        config_.groups, tokens,
                                                        weight * balance.device_loss));
    }
    if (balance.communication_loss > 0.0) {
      pass.auxiliary.push_back(ops::communication_balance_loss(
          scores, counted.groups, config_.top_groups, tokens, weight * balance.communication_loss));
    }
  }
  // Means over sequences and tokens: sums of the ranks' parts in either scope.
  const double all = static_cast<double>(pass.global_tokens) * pass.token_weight;
  if (balance.sequence_loss > 0.0) {
    const std::int64_t length = sequences == 0 ? 1 : logits.dim(0) / sequences;
    pass.auxiliary.push_back(ops::sequence_balance_loss(routing.scores, length, config_.active(),
                                                        sigmoid, pass.global_tokens / length,
                                                        all * balance.sequence_loss));
  }
  if (balance.z_loss > 0.0) {
    pass.auxiliary.push_back(ops::router_z_loss(logits, pass.global_tokens, all * balance.z_loss));
  }
}

void MoeFeedForward::begin_step() {
  load_.zero();
  statistics_.clear();
}

void MoeFeedForward::update_bias(const Tensor& global_load) {
  if (!bias_.defined()) return;
  ops::follow_load(bias_, global_load.to(bias_.device()), config_.balance.bias_rate);
}

}  // namespace fulcrum::models
