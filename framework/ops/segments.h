#pragma once
// Positions grouped by an integer key: the sort under duplicate removal and under deterministic
// sums of gradient rows.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

struct Segments {
  Tensor keys;       // i64 [u]: the different keys, ascending
  Tensor offsets;    // i64 [u + 1]: segment s is positions[offsets[s]..offsets[s + 1])
  Tensor positions;  // i64 [n]: where in the input each key stood, ascending within a segment

  std::int64_t count() const { return keys.numel(); }
};

// Groups n keys, each at least 0, by a stable radix sort. The cost is linear in n and in the bits
// of the largest key; the result does not depend on the number of threads.
Segments group_by_key(const std::int64_t* keys, std::int64_t n);

// Smallest and largest of n values; {0, -1} when there is none.
struct KeyRange {
  std::int64_t least = 0;
  std::int64_t most = -1;
};
KeyRange range_of(const std::int64_t* keys, std::int64_t n);

}  // namespace fulcrum::ops
