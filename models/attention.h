#pragma once
// Token mixing. Each kind turns normalised hidden states into an update of the residual stream.

#include <memory>
#include <string>

#include "framework/nn/linear.h"
#include "models/config.h"
#include "models/forward_pass.h"

namespace fulcrum::models {

class Attention {
 public:
  virtual ~Attention() = default;
  // [batch, sequence, width] → the same shape
  virtual Tensor forward(const Tensor& x, ForwardPass& pass) = 0;
};

// Causal softmax attention with grouped key-value heads and rotary positions.
//   q, k, v = x · Wqkvᵀ;  y = softmax(q kᵀ / sqrt(head_dim) + causal mask) v;  out = y · Woᵀ
class FullAttention : public Attention {
 public:
  FullAttention(ParameterStore& store, const std::string& name, const ModelConfig& config);
  Tensor forward(const Tensor& x, ForwardPass& pass) override;

 private:
  std::int64_t heads_;
  std::int64_t kv_heads_;
  std::int64_t head_dim_;
  double theta_;
  Linear qkv_;
  Linear output_;
};

// Throws UserError for kinds that this build counts but cannot train.
std::unique_ptr<Attention> make_attention(ParameterStore& store, const std::string& name,
                                          const ModelConfig& config);

}  // namespace fulcrum::models
