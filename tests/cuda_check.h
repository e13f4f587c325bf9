#pragma once
// An operator on CUDA against the same operator on the CPU in double.

#include <functional>
#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum::testing {

// Makes device 0 this process's, or fails the test where there is none.
Device cuda_device();

struct CudaInput {
  enum class Kind { activation, weight, vector };
  CudaInput(const Tensor& input, Kind what = Kind::activation) : value(input), kind(what) {}
  Tensor value;  // on the CPU: f64, or an integer dtype
  Kind kind;
};
// A matrix of parameters: a leaf of the tape, whose gradient is f32 also when it is bf16.
inline CudaInput weight(const Tensor& value) { return {value, CudaInput::Kind::weight}; }
// A parameter that stays f32 beside bf16 activations.
inline CudaInput vector(const Tensor& value) { return {value, CudaInput::Kind::vector}; }

using TensorFunction = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;

struct CudaErrors {
  double outputs = 0.0;    // the largest of all outputs
  double gradients = 0.0;  // the largest of all floating inputs
};

// Rounds the inputs to dtype (f32 or bf16), runs f on CUDA with them and on the CPU with their
// exact f64 values, and differentiates Σ weights · outputs, with fixed random weights, on both.
// Errors are ‖cuda − cpu‖ / ‖cpu‖, a NaN counting as infinity. All device memory is handed out
// poisoned. Integer outputs must be equal.
CudaErrors cuda_errors(const TensorFunction& f, const std::vector<CudaInput>& inputs, DType dtype);

// Largest error that the house allows: 1e-5 in f32, 1e-2 in bf16.
double cuda_tolerance(DType dtype);

}  // namespace fulcrum::testing
