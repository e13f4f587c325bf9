#pragma once
// Output projection and softmax cross-entropy in one operator: the logits [n, V] never exist whole.

#include <cstdint>

#include "framework/core/tensor.h"

namespace fulcrum::ops {

struct CrossEntropy {
  Tensor loss;     // [1], differentiable in hidden and head
  Tensor nll_sum;  // f64 [1], Σ_t nll_t, without gradient
};

// With logits_t = head · hidden_t, lse_t = log Σ_v exp(logits_tv) and nll_t = lse_t −
// logits_t[target_t]:
//   loss = scale · Σ_t (nll_t + z_weight · lse_t²)    over the tokens whose target is not negative
// hidden [n, d], head [V, d], targets i32 [n]; a target of −1 is ignored, others outside [0, V)
// throw ArgumentError. The second term is the z-loss (PaLM, section 5), which keeps lse near zero.
// Tokens are worked off in chunks; when recording, both gradients are formed in the same pass over
// the chunks, and backward multiplies them by its seed. f32 products follow set_matmul_precision.
CrossEntropy linear_cross_entropy(const Tensor& hidden, const Tensor& head, const Tensor& targets,
                                  double scale, double z_weight);

// Tokens of a chunk, for logits of `element` bytes.
std::int64_t cross_entropy_chunk(std::int64_t vocabulary, std::int64_t element);

}  // namespace fulcrum::ops
