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
  // h + update and its norm in one pass over memory
  const auto add = [](const Tensor& h, const Tensor& update, const RmsNorm& norm) {
    return ops::add_rms_norm(h, update, norm.weight(), norm.eps());
  };
  ops::NormedSum h{x, {}};
  if (memory_) {
    const InRegion region(Region::memory);
    h = add(x, memory_->forward(x, pass), attention_norm_);
  } else {
    h.normed = attention_norm_(x);
  }
  Tensor update;
  {
    const InRegion region(Region::attention);
    update = attention_->forward(h.normed, pass);
  }
  const auto [sum, normed] = add(h.sum, update, feed_forward_norm_);
  const InRegion region(moe_ != nullptr ? Region::experts : Region::feed_forward);
  return ops::add(sum, feed_forward_->forward(normed, pass));
}

}  // namespace fulcrum::models
