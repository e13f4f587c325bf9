#pragma once
// Rows of a large table: duplicate removal, sparse gather, spreading to tokens, and sums of sparse
// gradients.
//
//   rows = ngram_rows(…)                                          // i64 [n, h]
//   [unique, index] = unique_rows(rows)                           // what is read and sent once
//   memory = take_rows(gather_table(table, unique), index)        // [n, h · w]
//
// or, where all rows lie at hand and shapes must not depend on the batch (a GPU that holds the
// table alone), straight from the table, duplicates and all:
//
//   memory = read_table(table, rows)
//
// Time and memory of every step, forwards and backwards, are proportional to the rows that are
// read, not to the table.

#include <cstdint>

#include "framework/autograd/grad_slot.h"
#include "framework/core/tensor.h"

namespace fulcrum::ops {

struct UniqueRows {
  Tensor unique;  // i64 [u], ascending
  Tensor index;   // i64 [m]: rows[i] = unique[index[i]], over the flattened input
};

// The different values of row ids i64 […], none negative.
UniqueRows unique_rows(const Tensor& rows);

// table[unique − first_row] → [u, w]. The table [count, w] holds rows first_row..first_row + count
// of the whole; an id outside them throws ArgumentError. Backward appends (unique − first_row,
// gradient) to the sparse gradient of the table's slot: its row ids count within the tensor that is
// held. The table must be a leaf.
Tensor gather_table(const Tensor& table, const Tensor& unique, std::int64_t first_row = 0);

// y[i] = source[index[i, 0]] ‖ … ‖ source[index[i, h − 1]]: source [u, w] and index i64 [n, h] give
// [n, h · w] of dtype, which is the source's or, on CUDA, bf16. Backward adds the gradients of a
// source row: on the CPU in ascending order of position, on CUDA in the fixed order of
// merge_sparse. On CUDA every row of the source must be used.
Tensor take_rows(const Tensor& source, const Tensor& index, DType dtype);
inline Tensor take_rows(const Tensor& source, const Tensor& index) {
  return take_rows(source, index, source.dtype());
}

// y[i] = table[index[i, 0]] ‖ … ‖ table[index[i, h − 1]]: table [rows, w] and index i64 [n, h],
// with any duplicates, give [n, h · w] of dtype, which is the table's or, on CUDA, bf16. Backward
// appends (index, gradient) to the sparse gradient of the table's slot. The table must be a leaf.
// An id outside it throws ArgumentError on the CPU.
Tensor read_table(const Tensor& table, const Tensor& index, DType dtype);

// A sparse gradient in its plainest form.
struct MergedRows {
  Tensor rows;    // i64 [u], ascending, no duplicates
  Tensor values;  // [u, w]
  Tensor count;   // undefined, or i64 [1] on CUDA: only as many leading rows are set
};

// Sums the values of equal rows: on the CPU in order of appearance, on CUDA in f32 and in a fixed
// order. A gradient that is plain already is returned without a copy; one without parts gives
// undefined tensors. All rows are below bound (the number of the table's rows): on CUDA that saves
// sorting time.
MergedRows merge_sparse(const SparseRows& gradient, std::int64_t bound);

// The same in place, so that clipping and the optimizer share the work.
void merge_in_place(SparseRows& gradient, std::int64_t bound);

// i64 [1], where the gradient is: the number of different rows of a merged gradient.
Tensor merged_count(const SparseRows& gradient, Device device);

}  // namespace fulcrum::ops
