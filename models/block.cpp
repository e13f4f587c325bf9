#include "models/block.h"

#include "framework/core/region.h"
#include "framework/ops/elementwise.h"
#include "framework/ops/norm.h"

namespace fulcrum::models {

Block::Block(ParameterStore& store, const std::string& name, const ModelConfig& config,
             std::int64_t layer, std::unique_ptr<Memory> memory)
    : memory_(std::move(memory)),
      attention_norm_(store, name + ".attention_norm", config.width, config.norm_eps),
      attention_(make_attention(store, name + ".attention", config)),
      feed_forward_norm_(store, name + ".feed_forward_norm", config.width, config.norm_eps) {
  if (config.moe.experts > 0 && layer >= config.moe.leading_dense) {
    auto moe = std::make_unique<MoeFeedForward>(store, name + ".feed_forward", config);
    moe_ = moe.get();
    feed_forward_ = std::move(moe);
  } else {
    feed_forward_ =
        std::make_unique<DenseFeedForward>(store, name + ".feed_forward", config, config.ffn_width);
  }
}

Tensor Block::forward(const Tensor& x, ForwardPass& pass) {
  Tensor rows;
  if (memory_) {
    const InRegion region(Region::memory);
    rows = memory_->read(x.dtype());
  }
  return pass.recompute == Recompute::full ? run_twice(x, rows, pass) : run(x, rows, pass);
}

Tensor Block::run(const Tensor& x, const Tensor& rows, ForwardPass& pass) const {
  // h + update and its norm in one pass over memory
  const auto add = [](const Tensor& h, const Tensor& update, const RmsNorm& norm) {
    return ops::add_rms_norm(h, update, norm.weight(), norm.eps());
  };
  const auto drop = [&](const ops::NormedSum& h, const RmsNorm& norm) {
    if (pass.recompute != Recompute::selective) return;
    drop_until_backward(h.normed, [sum = h.sum, &norm] { return norm(sum); });
  };
  ops::NormedSum h{x, {}};
  if (memory_) {
    const InRegion region(Region::memory);
    h = add(x, memory_->forward(x, rows, pass), attention_norm_);
  } else {
    h.normed = attention_norm_(x);
  }
  Tensor update;
  {
    const InRegion region(Region::attention);
    update = attention_->forward(h.normed, pass);
    drop(h, attention_norm_);
  }
  h = add(h.sum, update, feed_forward_norm_);
  const InRegion region(moe_ != nullptr ? Region::experts : Region::feed_forward);
  update = feed_forward_->forward(h.normed, pass);
  drop(h, feed_forward_norm_);
  return ops::add(h.sum, update);
}

Tensor Block::run_twice(const Tensor& x, const Tensor& rows, ForwardPass& pass) const {
  ForwardPass inner = pass;
  inner.recompute = Recompute::none;
  inner.first_run = std::make_shared<FirstRun>();
  inner.auxiliary.clear();
  const auto segment = [this, inner](const std::vector<Tensor>& inputs) {
    ForwardPass own = inner;
    std::vector<Tensor> outputs{run(inputs[0], inputs[1], own)};
    outputs.insert(outputs.end(), own.auxiliary.begin(), own.auxiliary.end());
    FirstRun& first = *own.first_run;
    if (!first.done) first = {true, first.load, own.gate_means, own.dropped_slots};
    return outputs;
  };
  const std::vector<Tensor> outputs = recompute(segment, {x, rows});
  pass.gate_means = inner.first_run->gate_means;
  pass.dropped_slots = inner.first_run->dropped_slots;
  pass.auxiliary.insert(pass.auxiliary.end(), outputs.begin() + 1, outputs.end());
  return outputs.front();
}

}  // namespace fulcrum::models
