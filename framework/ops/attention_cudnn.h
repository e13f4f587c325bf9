#pragma once
// Causal attention of bf16 tensors by cuDNN's fused kernels. Internal to ops/attention.h, which has
// the formula and the shapes.
//
// A deterministic backward keeps the gradient of the scores, 2 bytes a pair of positions, between
// its two passes: sequences and heads are taken in parts whose scores fit kMostScoreBytes
// (ops/attention.h). A group of heads too long for that is not supported.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// Queries, keys and values of bf16 attention, or their gradients: three tensors [B, heads, S, D],
// or parts of one [B, S, (H + 2 KV) · D], as a fused projection gives it.
struct AttentionHeads {
  static AttentionHeads separate(const Tensor& query, const Tensor& key, const Tensor& value);
  static AttentionHeads fused(const Tensor& qkv, std::int64_t heads, std::int64_t kv_heads);

  bool is_fused;
  std::int64_t batch, heads, kv_heads, length, dim, value_dim;
  void *query, *key, *value;
  Device device;
};

enum class AttentionPass : std::uint8_t { forward, backward, deterministic_backward };
// The backward pass that core/determinism.h asks for.
AttentionPass backward_pass();

// Whether cuDNN has kernels for heads like these on this GPU. Where it has none for a reason other
// than the sizes, warns once.
bool cudnn_supports(const AttentionHeads& heads, double scale, AttentionPass pass);

// output [B, S, H, Dv], log_sum [B, H, S] in f32; for supported heads only.
void cudnn_attention(const AttentionHeads& in, double scale, const Tensor& output,
                     const Tensor& log_sum);

// Overwrites what `gradients` describes, which has the shapes of `in`.
void cudnn_attention_backward(const AttentionHeads& in, double scale, const Tensor& output,
                              const Tensor& log_sum, const Tensor& grad, AttentionPass pass,
                              const AttentionHeads& gradients);

}  // namespace fulcrum::ops::cuda
