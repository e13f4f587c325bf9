#pragma once
// Where the gradient of one tensor gathers during backward.

#include <functional>
#include <memory>
#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum {

// Gradient of a table of which only some rows were read: row ids (not unique, any order) and one
// gradient row for each.
struct SparseRows {
  std::vector<Tensor> rows;    // i64 [n_k]
  std::vector<Tensor> values;  // [n_k, width], the dtype of the table or of what was read from it
  // On CUDA, once merged (ops/table.h): i64 [1], of how many leading rows the only part consists.
  Tensor count;
  void clear() {
    rows.clear();
    values.clear();
    count = {};
  }
};

// A contribution to a gradient that an operator forms during forward and adds in its backward.
// Large ones (an output projection's) may lie in the leaf's own buffer meanwhile, which saves their
// memory and a pass over it.
struct EarlyGradient {
  Tensor value;
  bool in_place = false;  // value is the slot's buffer
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

  // Uninitialised memory for an early gradient: the buffer of a leaf while that is fresh and holds
  // no other, else new memory. Before anything else is written into the buffer, the early gradient
  // moves out of it.
  std::shared_ptr<EarlyGradient> begin_early(const Shape& shape, DType dtype, Device device);
  // Makes an early gradient this leaf's gradient where that takes no arithmetic: it lies in the
  // buffer, or there is none yet. Otherwise returns false and the caller adds it.
  bool adopt(EarlyGradient& early);

 private:
  void move_early_out();
  std::weak_ptr<EarlyGradient> early_;  // the one that lies in grad
};

// A tensor that wants a gradient: the same storage with a new leaf slot.
Tensor make_leaf(const Tensor& value);

}  // namespace fulcrum
