#pragma once
// Helpers of the optimizer tests.

#include <functional>
#include <string>
#include <vector>

#include "framework/autograd/grad_slot.h"
#include "framework/nn/parameter.h"
#include "framework/optim/optimizer.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
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

// Copies on the CPU of all that steps change: masters, values, then the optimizer's state.
inline std::vector<Tensor> results_of(const std::vector<Parameter*>& parameters,
                                      const Optimizer& optimizer) {
  std::vector<Tensor> results;
  for (const Parameter* p : parameters) {
    results.push_back(p->master.to(Device{}));
    results.push_back(p->value.to(Device{}));
  }
  for (const StateTensor& s : optimizer.state()) results.push_back(s.value.to(Device{}));
  return results;
}

// Values are the rounding of masters, to the last bit.
inline void check_rounding(const ParameterStore& store) {
  for (const auto& p : store.parameters()) {
    if (!p->rounded()) continue;
    const auto [first, count] = p->master_rows;
    CHECK(same_bytes(p->value.slice(first, first + count), p->master.to(Device{}).to(DType::bf16)));
  }
}

// Two runs from the same start on a GPU end with the same bits.
inline void check_repeats(const std::function<std::vector<Tensor>(ParameterStore&)>& run) {
  const ParameterStore::Placement placement{DType::bf16, cuda_device()};
  ParameterStore first(7, placement);
  ParameterStore second(7, placement);
  const std::vector<Tensor> a = run(first);
  const std::vector<Tensor> b = run(second);
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(same_bytes(a[i], b[i]));
}

}  // namespace fulcrum::testing
