#include "models/feed_forward.h"

#include "framework/ops/swiglu.h"
#include "models/initialization.h"

namespace fulcrum::models {

DenseFeedForward::DenseFeedForward(ParameterStore& store, const std::string& name,
                                   const ModelConfig& config, std::int64_t hidden)
    : gate_up_(store, name + ".gate_up", config.width, {hidden, hidden}, config.init_std),
      down_(store, name + ".down", hidden, config.width, residual_std(config)) {}

Tensor DenseFeedForward::operator()(const Tensor& tokens, const ForwardPass& pass) const {
  const Tensor gate_up = gate_up_(tokens);
  const Tensor hidden = ops::swiglu(gate_up);
  const Tensor y = down_(hidden);
  if (pass.recompute == Recompute::selective) {
    drop_until_backward(hidden, [gate_up] { return ops::swiglu(gate_up); });
  }
  return y;
}

Tensor DenseFeedForward::forward(const Tensor& x, ForwardPass& pass) {
  return (*this)(x.reshape({-1, x.dim(-1)}), pass).reshape(x.shape());
}

}  // namespace fulcrum::models
