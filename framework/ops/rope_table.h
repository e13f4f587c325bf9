#pragma once
// The angles of rotary positions. Internal to the operators that turn heads by them.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// Cosines and sines [at least `positions`, 2, half] of positions from 0, computed in double and
// kept for the next call: on the device of `like`, in the dtype that sums of its values have.
Tensor angle_table(std::int64_t positions, std::int64_t half, double theta, const Tensor& like);

}  // namespace fulcrum::ops
