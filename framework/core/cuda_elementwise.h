#pragma once
// What tensors and gradient slots need of device arithmetic. Callers are discarded in builds
// without CUDA (kBuiltWithCuda), so that no stand-in exists.

#include "framework/core/tensor.h"

namespace fulcrum {

void cuda_fill(const Tensor& x, double value);
// Between floating dtypes of at most 32 bits; same numel.
void cuda_convert(const Tensor& from, const Tensor& to);
// out = a + b, each f32 or bf16; out may be a.
void cuda_add(const Tensor& a, const Tensor& b, const Tensor& out);

}  // namespace fulcrum
