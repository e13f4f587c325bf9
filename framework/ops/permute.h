#pragma once
// Moving tokens to their experts and back (DeepSeekMoE, arXiv 2401.06066, section 3).
//
// A router gives every token k slots; a slot names an expert or, when its token was dropped, −1.
// make_permutation sorts the slots by (expert, token, slot), so that the rows of one expert are
// contiguous and grouped_linear can multiply them:
//
//   Permutation p = make_permutation(routing.experts, experts);
//   Tensor a = grouped_linear(permute(x, p), gate_up, p.offsets);          // [rows, 2 f]
//   Tensor y = grouped_linear(weighted_swiglu(a, routing.weights, p),      // ops/swiglu.h
//                             down, p.offsets);                            // [rows, d]
//   Tensor h = combine(y, p);                                              // [n, d]
//
// The routing weights enter between the products: a row's weight passes through the second product
// unchanged, and there the row is shortest, nothing but the sum's gradient is needed to go back
// from h to y, and y itself not at all.
//
// Every row belongs to at most one slot, which makes both directions free of atomics: the same bits
// for any number of threads.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

struct Permutation {
  Tensor source;   // i64 [rows]: the slot t · k + j that each row serves; −1: none
  Tensor slot;     // i64 [n, k]: the row of each slot; −1: dropped
  Tensor offsets;  // i64 [experts + 1]: expert e owns rows offsets[e] .. offsets[e + 1]

  std::int64_t rows() const { return source.dim(0); }
  std::int64_t tokens() const { return slot.dim(0); }
};

// experts: i32 [n, k], each −1 or in [0, count). On the CPU there is a row for each slot that was
// not dropped, and the first expert outside the range throws ArgumentError. On CUDA, where shapes
// do not follow the data, there are n · k rows; those from offsets[count] on serve no slot, and
// permute fills them with zeros.
Permutation make_permutation(const Tensor& experts, std::int64_t count);

// Row r of the result is x[source[r] / k]: [n, d] → [rows, d]. The gradient of a token is the sum
// over its slots, in slot order.
Tensor permute(const Tensor& x, const Permutation& p);

// h[t] = addend[t] + Σ_j y[slot[t, j]] over the slots that were not dropped, in slot order:
// y [rows, d] → [n, d]. addend [n, d] may be undefined (what all tokens share: the residual, shared
// experts). Differentiable in both.
Tensor combine(const Tensor& y, const Permutation& p, const Tensor& addend = {});

}  // namespace fulcrum::ops
