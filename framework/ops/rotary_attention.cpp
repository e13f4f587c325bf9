#include "framework/ops/rotary_attention.h"

#include "framework/ops/attention.h"
#include "framework/ops/rope.h"
#include "framework/ops/rotary_attention_cudnn.h"

namespace fulcrum::ops {

Tensor rotary_attention(Tensor qkv, std::int64_t heads, std::int64_t kv_heads,
                        std::int64_t head_dim, double theta, double scale) {
  check_fused_heads("rotary_attention", qkv, heads, kv_heads, head_dim, theta, 0);
  if constexpr (kBuiltWithCuda) {
    if (cuda::can_fuse_rotary_attention(qkv, heads, kv_heads, scale)) {
      return cuda::rotary_attention(std::move(qkv), heads, kv_heads, theta, scale);
    }
  }
  const Qkv y = split_qkv_rope(qkv, heads, kv_heads, head_dim, theta);
  qkv = {};
  return causal_attention(y.query, y.key, y.value, scale);
}

}  // namespace fulcrum::ops
