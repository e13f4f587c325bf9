#pragma once
// The context-aware gate of a DSE memory (arXiv 2601.07372 eq. 4, with the signed square root of
// the published code).

#include "framework/core/tensor.h"

namespace fulcrum::ops {

struct GatedValue {
  Tensor value;         // [n, d]: α · value
  Tensor gate;          // [n]: α, detached
  Tensor square_means;  // [n]: mean(value²) of each row, detached, for the norm that follows
};

// For every token, with RMSNorm(x; w) = w ⊙ x / √(mean(x²) + eps):
//   s = ⟨RMSNorm(hidden; hidden_norm), RMSNorm(key; key_norm)⟩ / √d
//   α = σ(r(s)),   r(s) = sign(s)·√max(|s|, 10⁻⁶) when signed_sqrt, else s
// hidden, key, value [n, d]; hidden_norm, key_norm [d]; differentiable in all five. The root passes
// no gradient where |s| < 10⁻⁶, and s = 0 gives α = ½ exactly.
GatedValue dse_gate(const Tensor& hidden, const Tensor& key, const Tensor& value,
                    const Tensor& hidden_norm, const Tensor& key_norm, double eps,
                    bool signed_sqrt);

}  // namespace fulcrum::ops
