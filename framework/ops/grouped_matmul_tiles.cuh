#pragma once
// Which part of a grouped product the tile number t is, found on the device from the offsets.

#include "framework/ops/grouped_matmul_kernels.cuh"

namespace fulcrum::ops::cuda {

struct GroupedTile {
  int group;
  int row, row_end;  // rows of the result: of y or dx, or within the group's weight gradient
  int column;
  int first;  // contraction: indices first..first + depth; rows of the activations in Form::weight
  int depth;
};

// Finds tiles of rising numbers. All 32 lanes call it together. Tiles of a group follow each other,
// in bands of kBand row tiles, row by row first: blocks that run at one time share rows and columns
// that fit in the L2 cache.
template <Form kForm, int kTileRows, int kTileColumns>
class GroupedTileWalk {
 public:
  __device__ explicit GroupedTileWalk(const GroupedProduct& p)
      : p_(p),
        lane_(threadIdx.x % 32),
        column_tiles_((p.columns + kTileColumns - 1) / kTileColumns) {}

  // False behind the last tile.
  __device__ bool find(int t, GroupedTile& tile) {
    int begin, end, inside;
    if constexpr (kForm == Form::weight) {
      const int row_tiles = (p_.out_rows + kTileRows - 1) / kTileRows;
      tile.group = t / (row_tiles * column_tiles_);
      if (tile.group >= p_.groups) return false;
      inside = t - tile.group * (row_tiles * column_tiles_);
      tile.first = static_cast<int>(p_.offsets[tile.group]);
      tile.depth = static_cast<int>(p_.offsets[tile.group + 1]) - tile.first;
      begin = 0;
      end = p_.out_rows;
    } else {
      while (t >= next_) {
        if (chunk_ >= p_.groups) return false;
        load();
      }
      // The first group whose tiles end behind t.
      const int hit = __popc(__ballot_sync(0xffffffffu, last_ <= t - base_));
      tile.group = chunk_ - 32 + hit;
      begin = __shfl_sync(0xffffffffu, begin_, hit);
      end = __shfl_sync(0xffffffffu, end_, hit);
      inside = t - base_ - (__shfl_sync(0xffffffffu, last_, hit) - tiles(begin, end));
      tile.first = 0;
      tile.depth = p_.depth;
    }
    const int row_tiles = (end - begin + kTileRows - 1) / kTileRows;
    const int band = inside / (kBand * column_tiles_);
    const int height = min(kBand, row_tiles - band * kBand);
    inside -= band * kBand * column_tiles_;
    tile.column = inside / height * kTileColumns;
    tile.row = begin + (band * kBand + inside % height) * kTileRows;
    tile.row_end = end;
    return true;
  }

 private:
  static constexpr int kBand = 16;

  __device__ int tiles(int begin, int end) const {
    return (end - begin + kTileRows - 1) / kTileRows * column_tiles_;
  }

  // The next 32 groups: a lane holds one, and the number of tiles to its end.
  __device__ void load() {
    const int group = chunk_ + lane_;
    begin_ = end_ = 0;
    if (group < p_.groups) {
      begin_ = static_cast<int>(p_.offsets[group]);
      end_ = static_cast<int>(p_.offsets[group + 1]);
    }
    last_ = tiles(begin_, end_);
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int before = __shfl_up_sync(0xffffffffu, last_, distance);
      if (lane_ >= distance) last_ += before;
    }
    base_ = next_;
    next_ += __shfl_sync(0xffffffffu, last_, 31);
    chunk_ += 32;
  }

  const GroupedProduct& p_;
  int lane_;
  int column_tiles_;
  int chunk_ = 0;            // groups before this one are loaded
  int base_ = 0, next_ = 0;  // tiles before the loaded groups, and to their end
  int begin_ = 0, end_ = 0, last_ = 0;
};

}  // namespace fulcrum::ops::cuda
