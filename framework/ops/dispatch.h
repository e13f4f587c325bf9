#pragma once
// The choice between an operator's CPU kernel and its CUDA kernel. Internal to the operators.
//
//   dispatch("swiglu", x, [&]<class T>() { forward<T>(x.data<T>(), …); },
//                         [&] { cuda::swiglu(x, y); });
//
// x.cpp checks arguments, records the tape and holds the CPU kernel; x_cuda.h declares what x.cu
// launches. Without CUDA the second function is never instantiated, so nothing stands in for it.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// What sums and statistics of tensors of a dtype are kept in.
constexpr DType accumulation_dtype(DType dtype) {
  return dtype == DType::bf16 ? DType::f32 : dtype;
}

// Whether a vector of parameters (scale, bias, convolution) suits activations: the same dtype, or
// f32 beside bf16 activations.
inline bool suits(const Tensor& vector, const Tensor& activations) {
  return vector.dtype() == accumulation_dtype(activations.dtype()) &&
         vector.device() == activations.device();
}

template <class Cpu, class Cuda>
void dispatch(const char* op, const Tensor& x, Cpu&& cpu, [[maybe_unused]] Cuda&& cuda) {
  if constexpr (kBuiltWithCuda) {
    if (x.device().is_cuda()) return cuda();
  }
  dispatch_floating(op, x.dtype(), cpu);
}

}  // namespace fulcrum::ops
