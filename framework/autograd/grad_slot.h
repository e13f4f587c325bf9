#pragma once
// Where the gradient of one tensor gathers during backward.

#include <functional>
#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum {

// Gradient of a table of which only some rows were read: row ids (not unique, any order) and one
// gradient row for each.
struct SparseRows {
  std::vector<Tensor> rows;    // i64 [n_k]
  std::vector<Tensor> values;  // [n_k, width], the table's dtype
  void clear() {
    rows.clear();
    values.clear();
  }
};

struct GradSlot {
  // Leaves: parameters. Their gradient buffer may be bound beforehand (a view into a reduction
  // bucket) and lives across backward passes; it is added to, unless `fresh`, when the first
  // contribution overwrites it.
  bool leaf = false;
  bool fresh = true;
  Tensor grad;
  SparseRows sparse;  // used instead of grad by gather_rows on tables

  // Number of recorded uses whose backward has not run yet. At zero the gradient is complete and
  // on_complete runs.
  int pending = 0;
  std::function<void()> on_complete;

  // Adds g, of any shape with the right number of elements. May keep g itself, without copying.
  void accumulate(const Tensor& g);

  // Where a kernel writes its contribution directly: either an existing gradient to add to (add =
  // true) or an uninitialised tensor to overwrite. The gradient of a bf16 leaf is f32; kernels
  // write in the dtype of the tensor they get.
  struct Target {
    Tensor tensor;
    bool add;
  };
  Target target(const Shape& shape, DType dtype, Device device);
};

// A tensor that wants a gradient: the same storage with a new leaf slot.
Tensor make_leaf(const Tensor& value);

}  // namespace fulcrum
