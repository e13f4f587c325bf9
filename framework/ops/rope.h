#pragma once
// Rotary position embedding (Su et al. 2021), half-split layout: element i of the first half of a
// head and element i of its second half are a pair, turned by the angle position · theta^(−2 i /
// dim).

#include "framework/core/tensor.h"

namespace fulcrum::ops {

struct Qkv {
  Tensor query;  // [batch, heads, seq, dim]
  Tensor key;    // [batch, kv_heads, seq, dim]
  Tensor value;  // [batch, kv_heads, seq, dim]
};

// Splits the output of a fused projection, qkv [batch, seq, (heads + 2 kv_heads) · head_dim] (query
// heads, then key heads, then value heads), turns query and key, and puts heads before positions,
// in one pass. Position of the first token is first_position. head_dim is even.
Qkv split_qkv_rope(const Tensor& qkv, std::int64_t heads, std::int64_t kv_heads,
                   std::int64_t head_dim, double theta, std::int64_t first_position = 0);

// Throws ArgumentError unless qkv and the sizes suit split_qkv_rope.
void check_fused_heads(const char* op, const Tensor& qkv, std::int64_t heads, std::int64_t kv_heads,
                       std::int64_t head_dim, double theta, std::int64_t first_position);

// The rotation alone; x [batch, heads, seq, dim].
Tensor rope(const Tensor& x, double theta, std::int64_t first_position = 0);

}  // namespace fulcrum::ops
