#pragma once
// SwiGLU activation (Shazeer 2020).

#include "framework/core/tensor.h"
#include "framework/ops/permute.h"

namespace fulcrum::ops {

// y = silu(gate) · up, where gate_up [rows, 2 f] holds gate in its first half of columns and up in
// its second → [rows, f].
Tensor swiglu(const Tensor& gate_up);

// The same in the rows of experts, times the routing weight of the slot that a row serves: row r is
// weights[source[r]] · silu(gate) · up. weights [n, k] are of the accumulation dtype (f32 beside
// bf16). Rows that serve no slot are 0, whatever gate_up holds there. Differentiable in both; the
// weight of a dropped slot has gradient 0.
Tensor weighted_swiglu(const Tensor& gate_up, const Tensor& weights, const Permutation& p);

}  // namespace fulcrum::ops
