#pragma once
// Helpers of tests that compare a model on CUDA with the same on the CPU.

#include "framework/nn/parameter.h"

namespace fulcrum::testing {

// Values of the store on CUDA, as they are computed with, become those of the f64 one on the CPU.
inline void copy_values(const ParameterStore& cuda, const ParameterStore& cpu) {
  for (std::size_t i = 0; i < cpu.parameters().size(); ++i) {
    const Tensor computed = cuda.parameters()[i]->value.to(Device{});
    cpu.parameters()[i]->value.copy_from(computed.to(DType::f64));
  }
}

}  // namespace fulcrum::testing
