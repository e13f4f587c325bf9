#pragma once
// Causal attention with grouped heads (Vaswani et al. 2017; Ainslie et al. 2023), computed by tiles
// as FlashAttention-2 does (Dao, arXiv 2307.08691): no score matrix ever exists whole.
//
//   o_t = Σ_{u ≤ t} softmax_u(scale · ⟨q_t, k_u⟩) v_u
//
// Head h of the H query heads reads key and value head h / (H / KV).

#include <cstdint>

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// query [B, H, S, D], key [B, KV, S, D], value [B, KV, S, Dv] → [B, S, H, Dv]; H is a multiple of
// KV. scale is 1 / √D as a rule. Differentiable in all three.
//
// Memory kept for backward: the inputs, the output and the log-sum-exp [B, H, S]. Backward computes
// the probabilities again. Always in f32 or f64, whatever the matmul precision. The result does not
// depend on the number of threads.
Tensor causal_attention(const Tensor& query, const Tensor& key, const Tensor& value, double scale);

// The most that a deterministic backward of bf16 on a GPU keeps of the gradients of scores, 2 bytes
// for each head and pair of positions, at one time.
inline constexpr std::int64_t kMostScoreBytes = std::int64_t{2} << 30;

}  // namespace fulcrum::ops
