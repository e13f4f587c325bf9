#pragma once
// Newton–Schulz on CUDA. Internal to the optimizers.

#include "framework/core/tensor.h"

namespace fulcrum::cuda {

// The iteration of newton_schulz.h for all matrices of x [matrices, rows, cols], bf16 or f32, whose
// norms are at most one already. x is used as scratch; the result may be x itself.
Tensor orthogonalize(const Tensor& x, std::int64_t iterations);

}  // namespace fulcrum::cuda
