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
  struct Counts {
    Tensor experts;  // i64 [experts]
    Tensor groups;   // i64 [groups], or undefined
    // What a loss that is linear in the counts is to be weighted with, so that they count for as
    // many tokens as one pass has.
    double scale = 1.0;
  };

  // Forgets the step.
  void clear();
  // Adds the counts of one micro-batch, summed over pass.data_ranks (every rank calls this), and
  // returns those of the step so far, scaled to pass.global_tokens tokens. groups may be undefined.
  Counts add(const Tensor& experts, const Tensor& groups, const ForwardPass& pass);

 private:
  Tensor total_;  // i64 [experts + groups]
  std::int64_t tokens_ = 0;
};

}  // namespace fulcrum::models
