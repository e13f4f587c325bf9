#pragma once
// Dense embedding: rows of a matrix by token id. Hashed tables with sparse gradients are in
// ops/table.h.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// y[t] = weight[ids[t]]: weight [vocabulary, width], ids i32 [n] → [n, width]. The weight's
// gradient is dense and sums the tokens of a row in their order. An id outside the vocabulary
// throws ArgumentError naming it and its position.
Tensor embedding(const Tensor& weight, const Tensor& ids);

}  // namespace fulcrum::ops
