#pragma once
// A share of the sequences of a batch, drawn by what they hold: the same sequence falls the same
// way on every rank, in every micro-batch and on every device.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// ids i32 [sequences, length] → u8 [sequences · length], 1 for every token of the sequences drawn.
// share in [0, 1] is the probability of each.
Tensor tokens_of_share(const Tensor& ids, double share);

}  // namespace fulcrum::ops
