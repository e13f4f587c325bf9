#pragma once
// The two implementations of grouped products on CUDA. Internal to grouped_matmul.cu.

#include <cstdint>

#include "framework/core/tensor.h"
#include "framework/ops/grouped_matmul_cuda.h"

namespace fulcrum::ops::cuda {

enum class Form {
  forward,  // y = x · weightᵀ
  input,    // dx = dy · weight
  weight,   // d = dyᵀ · x
};

// What a kernel computes: out (+)= a · b for each group.
struct GroupedProduct {
  const std::int64_t* offsets;  // [groups + 1]
  int groups;
  int rows;      // of the activations
  int out_rows;  // of a group's weight gradient (Form::weight)
  int columns;   // of the result
  int depth;     // contracted width (forward, input)
  void* out;
  bool add;
};

// Of any widths, f32 or bf16; out is the dtype of p.out.
void grouped_product_plain(Form form, const GroupedProduct& p, const Tensor& a, const Tensor& b,
                           DType out);

// Whether this device runs grouped_product_hopper.
bool has_grouped_product_hopper();

// bf16 operands, f32 sums; p.out has the dtype `out`: bf16, or f32 in Form::weight. Widths are
// multiples of 8 and addresses of 16 bytes; the result is not empty. tiles is one of Hopper's.
void grouped_product_hopper(Form form, const GroupedProduct& p, const Tensor& a, const Tensor& b,
                            DType out, GroupedTiles tiles);

}  // namespace fulcrum::ops::cuda
