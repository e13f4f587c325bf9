#pragma once
// What grouped_matmul*.cu launches. Internal to ops/grouped_matmul.h, which has the formula.
// Operands are f32 or bf16, sums f32, results f32 or bf16; all are fast on Hopper where operands
// are bf16 and results too (of grouped_weights: or f32). offsets are read on the device.

#include <cstdint>

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// How the result is cut into tiles.
enum class GroupedTiles : std::uint8_t {
  automatic,
  shared_256,  // 128 × 256, each by two warpgroups
  own_192,     // 128 × 192, a warpgroup stores one while the other multiplies the next
  own_128,     // 128 × 128, the same
  plain,       // 64 × 64 without tensor cores: any widths, any dtype, any chip
};

// y [rows, out] (+)= x [rows, in] · weight[group]ᵀ; rows behind the last group are zero, or stay as
// they are with add.
void grouped_rows(const Tensor& x, const Tensor& weight, const Tensor& offsets, const Tensor& y,
                  bool add, GroupedTiles tiles = GroupedTiles::automatic);

// dx [rows, in] (+)= dy [rows, out] · weight[group], likewise.
void grouped_rows_back(const Tensor& dy, const Tensor& weight, const Tensor& offsets,
                       const Tensor& dx, bool add, GroupedTiles tiles = GroupedTiles::automatic);

// d [groups, out, in] (+)= dyᵀ · x over the rows of each group.
void grouped_weights(const Tensor& dy, const Tensor& x, const Tensor& offsets, const Tensor& d,
                     bool add, GroupedTiles tiles = GroupedTiles::automatic);

}  // namespace fulcrum::ops::cuda
