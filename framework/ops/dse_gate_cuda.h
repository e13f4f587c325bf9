#pragma once
// What dse_gate.cu and dse_gate_backward.cu launch. Internal to ops/dse_gate.h, which has the formulas. Activations are
// f32 or bf16; norms, scores, gate and square means are f32.

#include "framework/autograd/grad_slot.h"

namespace fulcrum::ops {

struct GateInputs {
  Tensor hidden, key, value;     // [n, d]
  Tensor hidden_norm, key_norm;  // [d]
};

namespace cuda {

// scores [n, 3]: s before the root and the two inverse root mean squares. Reads hidden, key and
// value once and writes out once.
void dse_gate(const GateInputs& in, double eps, bool signed_sqrt, const Tensor& scores,
              const Tensor& out, const Tensor& gate, const Tensor& square_means);

// Targets without a tensor are not wanted; the others do not overlap. Returns partial sums [parts,
// d] of Σ_t q·(hidden ⊙ key): the gradient of each norm is their sum times the other norm.
Tensor dse_gate_backward(const GateInputs& in, bool signed_sqrt, const Tensor& scores,
                         const Tensor& gradient, const GradSlot::Target& d_hidden,
                         const GradSlot::Target& d_key, const GradSlot::Target& d_value);

}  // namespace cuda
}  // namespace fulcrum::ops
