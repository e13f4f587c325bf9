#include "models/attention.h"

#include <cmath>

#include "framework/ops/rotary_attention.h"
#include "models/initialization.h"

namespace fulcrum::models {

FullAttention::FullAttention(ParameterStore& store, const std::string& name,
                             const ModelConfig& config)
    : heads_(config.attention.heads),
      kv_heads_(config.attention.kv_heads),
      head_dim_(config.attention.head_dim),
      theta_(config.attention.rope_theta),
      qkv_(store, name + ".qkv", config.width,
           {heads_ * head_dim_, kv_heads_ * head_dim_, kv_heads_ * head_dim_}, config.init_std),
      output_(store, name + ".output", heads_ * head_dim_, config.width, residual_std(config)) {}

Tensor FullAttention::forward(const Tensor& x, ForwardPass&) {
  const Tensor mixed = ops::rotary_attention(qkv_(x), heads_, kv_heads_, head_dim_, theta_,
                                             1.0 / std::sqrt(static_cast<double>(head_dim_)));
  return output_(mixed.reshape({x.dim(0), x.dim(1), heads_ * head_dim_}));
}

std::unique_ptr<Attention> make_attention(ParameterStore& store, const std::string& name,
                                          const ModelConfig& config) {
  switch (config.attention.kind) {
    case AttentionKind::full:
      return std::make_unique<FullAttention>(store, name, config);
    case AttentionKind::nsa:
      throw UserError(
          "model.attention.kind: nsa can be planned and counted, but not trained yet; allowed: "
          "full");
    case AttentionKind::mla:
      throw UserError(
          "model.attention.kind: mla can be planned and counted, but not trained yet; allowed: "
          "full");
  }
  throw InternalError("unknown attention kind");
}

}  // namespace fulcrum::models
