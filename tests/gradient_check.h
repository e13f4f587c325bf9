#pragma once
// Finite-difference check of an operator's backward, in double.

#include <functional>
#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum::testing {

// f64 tensor of N(0, scale²), a pure function of (shape, seed).
Tensor random(const Shape& shape, std::uint64_t seed, double scale = 1.0);

// Compares the tape's gradient of Σ weights · f(inputs) (fixed random weights) with central differences, for every element
// of every input that is f64. Returns the largest error relative to 1 + |gradient|; NaN counts as infinity.
double gradient_error(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                      const std::vector<Tensor>& inputs, double step = 1e-5);

// ‖a − b‖ / ‖b‖ over any floating dtypes; NaN in either counts as infinity.
double relative_error(const Tensor& a, const Tensor& b);

// Same dtype, shape and bits, on whatever devices.
bool same_bytes(const Tensor& a, const Tensor& b);

}  // namespace fulcrum::testing
