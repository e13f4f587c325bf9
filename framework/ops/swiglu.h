#pragma once
// SwiGLU activation (Shazeer 2020).

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// y = silu(gate) · up, where gate_up [rows, 2 f] holds gate in its first half of columns and up in
// its second → [rows, f].
Tensor swiglu(const Tensor& gate_up);

}  // namespace fulcrum::ops
