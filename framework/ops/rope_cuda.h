#pragma once
// What rope.cu launches. Internal to ops/rope.h, which has the formula and the shapes. Values are
// f32 or bf16, the table is f32 [positions, 2, dim / 2]: the cosines of a position, then its sines.
// Rows are moved 16 bytes at a time where dim / 2 is a multiple of that.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// query, key and value from qkv [batch, seq, (heads + 2 kv_heads) · dim].
void split_qkv_rope(const Tensor& qkv, const Tensor& table, std::int64_t first_position,
                    const Tensor& query, const Tensor& key, const Tensor& value);

// The gradient of qkv, overwritten, from those of its parts, of which some may be undefined: zero.
void merge_qkv_rope(const Tensor& query, const Tensor& key, const Tensor& value,
                    const Tensor& table, std::int64_t first_position, std::int64_t heads,
                    std::int64_t kv_heads, const Tensor& qkv);

// Turns queries and keys by sign · angle, from and to [batch, seq, (heads + 2 kv_heads) · dim], and
// copies the values. In place, where from is to, values are not touched.
void turn_qkv(const Tensor& from, const Tensor& table, double sign, std::int64_t heads,
              std::int64_t kv_heads, const Tensor& to);

// out = x turned by sign · angle; x [batch, heads, seq, dim].
void rope(const Tensor& x, const Tensor& table, double sign, std::int64_t first_position,
          const Tensor& out);

}  // namespace fulcrum::ops::cuda
