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
  p.slot().grad = gradient.to(p.master.dtype()).to(p.value.device());
  p.slot().fresh = false;
}

// Leaves this rank only some rows of the master, as an optimizer divided over data ranks does.
inline void keep_master_rows(Parameter& p, std::int64_t first, std::int64_t count) {
  const Tensor& whole = p.rounded() ? p.master : p.value;
  const Tensor rows = whole.slice(first, first + count);
  p.master = p.rounded() ? rows.clone() : rows;
  p.master_rows = {first, count};
}

inline Tensor random_gradient(const Parameter& p, std::uint64_t seed, double scale = 1.0) {
  return random(p.value.shape(), 1000 + seed, scale);
}

}  // namespace fulcrum::testing
