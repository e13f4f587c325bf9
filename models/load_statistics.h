#pragma once
// Expert load over the global batch, for balance losses. How widely the load is counted matters
// more than the mechanism (DeepSeek-V3 section 4.5.3): a micro-batch of one rank is far from
// balanced even when the batch is.

#include <cstdint>

#include "framework/core/tensor.h"
#include "models/forward_pass.h"

namespace fulcrum::models {

class LoadStatistics {
 public:
  // Forgets the step.
  void clear();
  // Adds the counts of one micro-batch, summed over pass.data_ranks (every rank calls this), and
  // returns those of the step so far, scaled to pass.global_tokens tokens. groups may be undefined.
  // The second run of a recomputed block gets what the first got.
  LoadCounts add(const Tensor& experts, const Tensor& groups, const ForwardPass& pass);

 private:
  Tensor total_;  // i64 [experts + groups]
  std::int64_t tokens_ = 0;
};

}  // namespace fulcrum::models
