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
//
// With kLongestFirst, groups whose tiles differ in depth (Form::weight) come by falling depth, 128
// groups at a time: no long tile is left to the end.
template <Form kForm, int kTileRows, int kTileColumns, bool kLongestFirst = false>
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
      const int of_group = count(0, p_.out_rows);
      const int nth = t / of_group;
      if (nth >= p_.groups) return false;
      tile.group = kLongestFirst ? longest(nth) : nth;
      inside = t - nth * of_group;
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
      inside = t - base_ - (__shfl_sync(0xffffffffu, last_, hit) - count(begin, end));
      tile.first = 0;
      tile.depth = p_.depth;
    }
    place(begin, end, inside, tile);
    return true;
  }

 private:
  static constexpr int kBand = 16;
  static constexpr int kWindow = 128;  // groups that are ordered together

  __device__ static int row_tiles(int begin, int end) {
    return (end - begin + kTileRows - 1) / kTileRows;
  }

  // Tiles that a group has.
  __device__ int count(int begin, int end) const { return row_tiles(begin, end) * column_tiles_; }

  __device__ void place(int begin, int end, int inside, GroupedTile& tile) const {
    const int band = inside / (kBand * column_tiles_);
    const int height = min(kBand, row_tiles(begin, end) - band * kBand);
    inside -= band * kBand * column_tiles_;
    tile.row = begin + (band * kBand + inside % height) * kTileRows;
    tile.row_end = end;
    tile.column = inside / height * kTileColumns;
  }

  // The group that is nth by depth, of equal ones the first. nth never falls.
  __device__ int longest(int nth) {
    while (taken_ <= nth) {
      if (taken_ % kWindow == 0) load_depths();
      std::uint32_t key = max(max(keys_[0], keys_[1]), max(keys_[2], keys_[3]));
      key = __reduce_max_sync(0xffffffffu, key);
#pragma unroll
      for (std::uint32_t& mine : keys_) mine = mine == key ? 0 : mine;
      group_ = taken_ / kWindow * kWindow + kWindow - static_cast<int>(key % (2 * kWindow));
      ++taken_;
    }
    return group_;
  }

  // A key is the depth, and below it kWindow less the number of the group in its window, 1 at
  // least.
  __device__ void load_depths() {
#pragma unroll
    for (int i = 0; i < kWindow / 32; ++i) {
      const int inside = lane_ + 32 * i;
      const int group = taken_ + inside;
      keys_[i] = 0;
      if (group < p_.groups) {
        const auto depth = static_cast<int>(p_.offsets[group + 1] - p_.offsets[group]);
        keys_[i] = static_cast<std::uint32_t>(min(depth, (1 << 23) - 1)) * (2 * kWindow) + kWindow -
                   inside;
      }
    }
  }

  // The next 32 groups: a lane holds one, and the number of tiles to its end.
  __device__ void load() {
    const int group = chunk_ + lane_;
    begin_ = end_ = 0;
    if (group < p_.groups) {
      begin_ = static_cast<int>(p_.offsets[group]);
      end_ = static_cast<int>(p_.offsets[group + 1]);
    }
    last_ = count(begin_, end_);
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
  int taken_ = 0, group_ = 0;  // groups taken by depth, and the last of them
  std::uint32_t keys_[kWindow / 32] = {};
};

}  // namespace fulcrum::ops::cuda
