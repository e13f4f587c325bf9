#pragma once
// What embedding*.cu compute. Internal to ops/embedding.h. ids are i32 on the device and must lie
// in the vocabulary.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// y [n, width] = weight[ids]
void embedding(const Tensor& weight, const Tensor& ids, const Tensor& y);

// out [vocabulary, width] (+)= Σ over the tokens of each row of g [n, width], in their order. Rows
// without tokens become zero unless add is set.
void embedding_backward(const Tensor& g, const Tensor& ids, const Tensor& out, bool add);

}  // namespace fulcrum::ops::cuda
