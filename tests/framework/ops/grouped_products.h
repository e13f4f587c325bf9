#pragma once
// The three grouped products on CUDA with a tiling of choice. Builds without CUDA have none, and
// tests that call these do not run there.

#include "framework/ops/grouped_matmul_cuda.h"

namespace fulcrum::testing {

inline void grouped_forward(const Tensor& x, const Tensor& weight, const Tensor& offsets,
                            const Tensor& y, bool add, ops::cuda::GroupedTiles tiles) {
  if constexpr (kBuiltWithCuda) ops::cuda::grouped_rows(x, weight, offsets, y, add, tiles);
}

inline void grouped_input(const Tensor& dy, const Tensor& weight, const Tensor& offsets,
                          const Tensor& dx, bool add, ops::cuda::GroupedTiles tiles) {
  if constexpr (kBuiltWithCuda) ops::cuda::grouped_rows_back(dy, weight, offsets, dx, add, tiles);
}

inline void grouped_weight(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                           const Tensor& d, bool add, ops::cuda::GroupedTiles tiles) {
  if constexpr (kBuiltWithCuda) ops::cuda::grouped_weights(dy, x, offsets, d, add, tiles);
}

}  // namespace fulcrum::testing
