#pragma once
// A step of several ranks that divide the optimizer's work against the same step of one rank, in
// host or device memory.

#include "framework/core/device.h"
#include "framework/core/dtype.h"

namespace fulcrum::testing {

// Reduces random gradients of every rank, updates each master by a part of its gradient, gathers
// the values, and compares all of it with what one rank alone gets from the sum of the gradients.
void check_sharding(DType dtype, Device device, bool whole_matrices, std::int64_t expert);

}  // namespace fulcrum::testing
