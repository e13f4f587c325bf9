#pragma once
// Random inputs of the bench. Never zeros: they run faster than real data.

#include "framework/core/tensor.h"

namespace fulcrum::apps {

// N(0, scale²), rounded to dtype.
Tensor random_values(const Shape& shape, DType dtype, Device device, std::uint64_t seed,
                     double scale = 1.0);
// i32 in [0, bound)
Tensor random_ids(const Shape& shape, std::int64_t bound, Device device, std::uint64_t seed);

}  // namespace fulcrum::apps
