#pragma once
// What permutation.cu and permute.cu launch. Internal to ops/permute.h, which has the definitions.

#include "framework/ops/permute.h"

namespace fulcrum::ops::cuda {

// Fills p, whose tensors have n · k rows, with the permutation that sorts experts i32 [n, k].
void make_permutation(const Tensor& experts, std::int64_t count, const Permutation& p);

// rows[slot[t, j]] = x[t] for every slot that was not dropped; rows behind the last expert's are 0.
void spread_rows(const Tensor& x, const Permutation& p, const Tensor& rows);

// out[t] = base[t] + Σ_j rows[slot[t, j]] over the slots that were not dropped, summed in f32 in
// slot order; base may be undefined, and may be out.
void sum_slots(const Tensor& rows, const Permutation& p, const Tensor& base, const Tensor& out);

}  // namespace fulcrum::ops::cuda
