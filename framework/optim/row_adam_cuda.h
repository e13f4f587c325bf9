#pragma once
// RowAdam on CUDA. Internal to the optimizers.

#include "framework/ops/table.h"
#include "framework/optim/adam_kernel.h"

namespace fulcrum::cuda {

struct RowAdamTensors {
  Tensor weight;     // f32 [rows, width]
  Tensor moments;    // f32 [rows, 2, width]
  Tensor row_steps;  // i32 [rows]
};

// Updates the rows of a merged gradient, its values f32. constants hold the learning rate as their
// step size; a row's bias corrections 1 − βᵗ are found on the device, t being its own step. Moves
// 28 bytes an element of a touched row, and 8 (of 32-byte sectors, 64) a row.
void row_adam(const ops::MergedRows& gradient, const RowAdamTensors& table,
              const AdamConstants<float>& constants, double beta1, double beta2);

}  // namespace fulcrum::cuda
