#pragma once
// Channel mixing: a dense SwiGLU, or a mixture of such experts (models/moe.h).

#include <string>

#include "framework/nn/linear.h"
#include "models/config.h"
#include "models/forward_pass.h"

namespace fulcrum::models {

class FeedForward {
 public:
  virtual ~FeedForward() = default;
  // [batch, sequence, width] → the same shape
  virtual Tensor forward(const Tensor& x, ForwardPass& pass) = 0;
};

// down(silu(gate(x)) · up(x)) (Shazeer 2020); gate and up are one matrix.
class DenseFeedForward : public FeedForward {
 public:
  DenseFeedForward(ParameterStore& store, const std::string& name, const ModelConfig& config,
                   std::int64_t hidden);
  Tensor forward(const Tensor& x, ForwardPass& pass) override;
  Tensor operator()(const Tensor& tokens, const ForwardPass& pass) const;  // [tokens, width]

 private:
  Linear gate_up_;
  Linear down_;
};

}  // namespace fulcrum::models
