#pragma once
// Moving tokens to their experts and back (DeepSeekMoE, arXiv 2401.06066, section 3).
//
// A router gives every token k slots; a slot names an expert or, when its token was dropped, −1.
// make_permutation sorts the slots by (expert, token, slot), so that the rows of one expert are
// contiguous and grouped_linear can multiply them:
//
//   Permutation p = make_permutation(routing.experts, experts);
//   Tensor y = expert(permute(x, p), p.offsets);        // [rows, d]
//   Tensor h = combine(y, routing.weights, p);          // [n, d]
//
// Every row belongs to exactly one slot, which makes both directions gathers: no atomics, and the
// same bits for any number of threads.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

struct Permutation {
  Tensor token;    // i64 [rows]: the token of each row
  Tensor slot;     // i64 [n, k]: the row of each slot; −1: dropped
  Tensor offsets;  // i64 [experts + 1]: expert e owns rows offsets[e] .. offsets[e + 1]

  std::int64_t rows() const { return token.dim(0); }
  std::int64_t tokens() const { return slot.dim(0); }
};

// experts: i32 [n, k], each −1 or in [0, count). rows is the number of slots that were not dropped.
// Throws ArgumentError naming the first expert outside the range.
Permutation make_permutation(const Tensor& experts, std::int64_t count);

// Row r of the result is x[token[r]]: [n, d] → [rows, d]. The gradient of a token is the sum over
// its slots, in slot order.
Tensor permute(const Tensor& x, const Permutation& p);

// h[t] = Σ_j weights[t, j] · y[slot[t, j]] over the slots that were not dropped: y [rows, d],
// weights [n, k] → [n, d]. Differentiable in both; a dropped slot's weight has gradient 0.
Tensor combine(const Tensor& y, const Tensor& weights, const Permutation& p);

}  // namespace fulcrum::ops
