#pragma once
// What sequence_share.cu launches. Internal to ops/sequence_share.h.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

void tokens_of_share(const Tensor& ids, std::uint64_t threshold, const Tensor& chosen);

}  // namespace fulcrum::ops::cuda
