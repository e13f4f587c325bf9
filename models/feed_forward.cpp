#include "models/feed_forward.h"

#include "framework/ops/swiglu.h"
#include "models/initialization.h"

namespace fulcrum::models {

DenseFeedForward::DenseFeedForward(ParameterStore& store, const std::string& name,
                                   const ModelConfig& config, std::int64_t hidden)
    : gate_up_(store, name + ".gate_up", config.width, {hidden, hidden}, config.init_std),
      down_(store, name + ".down", hidden, config.width, residual_std(config)) {}

Tensor DenseFeedForward::operator()(const Tensor& tokens) const {
  return down_(ops::swiglu(gate_up_(tokens)));
}

Tensor DenseFeedForward::forward(const Tensor& x, ForwardPass&) {
  return (*this)(x.reshape({-1, x.dim(-1)})).reshape(x.shape());
}

}  // namespace fulcrum::models
