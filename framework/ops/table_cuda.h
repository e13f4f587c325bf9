#pragma once
// What table.cu and merge.cu launch. Internal to ops/table.h.

#include "framework/ops/table.h"

namespace fulcrum::ops::cuda {

// out [n, h · w] = table[index[i, 0]] ‖ …: table f32 [rows, w], index i64 [n, h]; out f32 or bf16.
void read_table(const Tensor& table, const Tensor& index, const Tensor& out);

// Sums the values, f32 or bf16, of equal rows in f32. Shapes are those of the parts together; the
// count of different rows stays on the device.
//
// Sums are formed in a fixed order: the sorted positions are cut into chunks of 32, a chunk's part
// of a row is added up one by one, and a row's chunks are added one by one, 32 chunks at once where
// it has them whole.
MergedRows merge_sparse(const SparseRows& gradient, std::int64_t bound);

}  // namespace fulcrum::ops::cuda
