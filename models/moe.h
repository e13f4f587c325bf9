#pragma once
// Mixture of experts (GShard; DeepSeekMoE section 3; DeepSeek-V2 and -V3).
//
//   h_t = Σ_shared FFN_i(u_t) + Σ_{i in top-k} g_{i,t} FFN_i(u_t)
//
// with g from the router (framework/ops/router.h). Experts are stacked: gate_up [experts, 2·w,
// width], down [experts, width, w]. Balancing: losses over the statistics of the global batch, or a
// selection bias that follows the load (no loss). Load and bias live where the model computes.

#include <cstdint>
#include <optional>
#include <string>

#include "framework/ops/router.h"
#include "models/feed_forward.h"
#include "models/load_statistics.h"

namespace fulcrum::models {

class MoeFeedForward : public FeedForward {
 public:
  MoeFeedForward(ParameterStore& store, const std::string& name, const ModelConfig& config);
  Tensor forward(const Tensor& x, ForwardPass& pass) override;

  // Tokens that chose each expert in this step so far, on this rank: i64 [experts].
  const Tensor& load() const { return load_; }
  // Forgets the load; called before the first micro-batch of a step.
  void begin_step();
  // Auxiliary-loss-free balancing (DeepSeek-V3 section 2.1.2): b_i ± rate for experts below / above
  // the mean of global_load, the load of the step summed over ranks: i64, an element for each
  // expert, on any device.
  void update_bias(const Tensor& global_load);
  std::int64_t experts() const { return config_.routed(); }

 private:
  void add_balance_losses(const Tensor& logits, const ops::Routing& routing, std::int64_t sequences,
                          ForwardPass& pass);

  MoeConfig config_;
  Linear router_;
  Parameter* gate_up_;
  Parameter* down_;
  std::optional<DenseFeedForward> shared_;
  Tensor bias_;  // f32 [experts]; undefined unless balancing by bias
  Tensor load_;  // i64 [experts]
  LoadStatistics statistics_;
};

}  // namespace fulcrum::models
