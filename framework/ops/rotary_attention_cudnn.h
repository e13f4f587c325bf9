#pragma once
// Rotary attention on the fused projection's own layout, through cuDNN. Internal to
// ops/rotary_attention.h.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// Whether cuDNN can, forward and, when a tape records, backward.
bool can_fuse_rotary_attention(const Tensor& qkv, std::int64_t heads, std::int64_t kv_heads,
                               double scale);

// Records itself.
Tensor rotary_attention(Tensor qkv, std::int64_t heads, std::int64_t kv_heads, double theta,
                        double scale);

}  // namespace fulcrum::ops::cuda
