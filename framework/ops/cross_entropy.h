#pragma once
// Output projection and softmax cross-entropy in one operator: the logits [n, V] never exist whole.

#include <cstdint>

#include "framework/core/tensor.h"

namespace fulcrum::ops {

struct CrossEntropy {
  Tensor loss;     // [1], f32 or f64, differentiable in hidden and head
  Tensor nll_sum;  // f64 [1], Σ_t nll_t, without gradient
};

// With logits_t = head · hidden_t, lse_t = log Σ_v exp(logits_tv) and nll_t = lse_t −
// logits_t[target_t]:
//   loss = scale · Σ_t (nll_t + z_weight · lse_t²)    over the tokens whose target is not negative
// hidden [n, d], head [V, d], targets i32 [n]; a target of −1 is ignored, others outside [0, V)
// throw ArgumentError (on the CPU; on CUDA they must not occur). The second term is the z-loss
// (PaLM, section 5), which keeps lse near zero. Tokens are worked off in chunks; when recording,
// both gradients are formed in the same pass over the chunks (the head's in the parameter's own
// buffer where that is free), and backward multiplies them by its seed. f32 products on the CPU
// follow set_matmul_precision. With bf16 inputs, logits are bf16, and losses and the head's
// gradient f32.
CrossEntropy linear_cross_entropy(const Tensor& hidden, const Tensor& head, const Tensor& targets,
                                  double scale, double z_weight);

// The logits that exist at once: tokens of a chunk and columns of its rows, of which the vocabulary
// fills the first; for logits of `element` bytes.
struct LogitsChunk {
  std::int64_t tokens = 0;
  std::int64_t columns = 0;
};
LogitsChunk cross_entropy_chunk(std::int64_t tokens, std::int64_t vocabulary, std::int64_t element,
                                Device device);

}  // namespace fulcrum::ops
