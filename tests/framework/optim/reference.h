#pragma once
// Helpers of the optimizer tests.

#include <string>

#include "framework/autograd/grad_slot.h"
#include "framework/nn/parameter.h"
#include "tests/gradient_check.h"

namespace fulcrum::testing {

// A store with parameters of random values; the same seed and names give the same values.
inline ParameterStore make_store(DType dtype = DType::f64) { return ParameterStore(7, dtype); }

inline void set_gradient(const Parameter& p, const Tensor& gradient) {
  p.slot().grad = gradient.to(p.value.dtype());
  p.slot().fresh = false;
}

inline Tensor random_gradient(const Parameter& p, std::uint64_t seed, double scale = 1.0) {
  return random(p.value.shape(), 1000 + seed, scale);
}

}  // namespace fulcrum::testing
