#pragma once
// What swiglu.cu launches. Internal to ops/swiglu.h, which has the formulas.

#include "framework/ops/permute.h"

namespace fulcrum::ops::cuda {

// The routing weights of rows; without weights every row counts once.
struct RowWeights {
  Tensor weights;  // f32 [n, k]
  Tensor source;   // i64 [rows]
  Tensor slot;     // i64 [n, k], of as many elements as there are rows
};

void swiglu(const Tensor& gate_up, const RowWeights& rows, const Tensor& y);

// d (+)= the gradient of gate_up for that of y; dweights f32 [n, k], when there are weights,
// receives theirs and may be undefined.
void swiglu_backward(const Tensor& gate_up, const RowWeights& rows, const Tensor& g,
                     const Tensor& d, bool add, const Tensor& dweights);

}  // namespace fulcrum::ops::cuda
