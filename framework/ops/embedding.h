#pragma once
// Dense embedding: rows of a matrix by token id. Hashed tables with sparse gradients are in
// ops/table.h.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// y[t] = weight[ids[t]]: weight [vocabulary, width], ids i32 [n] → [n, width]. The weight's
// gradient is dense and sums the tokens of a row, on the CPU in their order, on CUDA by tiles of a
// fixed size, so that either repeats bit for bit. An id outside the vocabulary throws ArgumentError
// naming it and its position (on the CPU; on CUDA there must be none).
Tensor embedding(const Tensor& weight, const Tensor& ids);

}  // namespace fulcrum::ops
