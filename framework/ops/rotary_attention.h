#pragma once
// Attention of a fused projection with rotary positions: split_qkv_rope (ops/rope.h), then
// causal_attention (ops/attention.h), as one operator where that saves passes over memory.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// qkv [B, S, (H + 2 KV) · D] → [B, S, H, D]; differentiable.
//
// On GPUs where cuDNN computes the attention, queries and keys are turned where they lie, in qkv
// itself when nothing else holds its memory (move it in), else in one copy; their gradients are
// turned back in the gradient of qkv.
Tensor rotary_attention(Tensor qkv, std::int64_t heads, std::int64_t kv_heads,
                        std::int64_t head_dim, double theta, double scale);

}  // namespace fulcrum::ops
