#pragma once
// Positions grouped by an integer key, on the device: what ops/segments.h does on the CPU, with
// static shapes and without asking the device how many keys there are.

#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// n keys in ascending order, equal keys in the order of their positions. The first of each run of
// equal keys opens a segment.
struct SortedKeys {
  Tensor keys;       // i32 or i64 [n]
  Tensor positions;  // i32 [n]: where in the input each key stood
  Tensor segments;   // i32 [n]: segments opened up to here, so that the first key has 1

  std::int64_t size() const { return positions.numel(); }
};

// Sorts the keys of several i64 parts, which count as one input; all lie in [0, bound). Only the
// bits of bound − 1 are sorted, and keys that fit in 31 bits are kept in 32.
SortedKeys sort_keys(const std::vector<Tensor>& parts, std::int64_t bound);

struct Segments {
  Tensor keys;     // i64 [n], of which count are set: the different keys, ascending
  Tensor offsets;  // i32 [n], of which count are set: where in the sorted keys each segment begins
  Tensor count;    // i64 [1]
};

Segments find_segments(const SortedKeys& sorted);

}  // namespace fulcrum::ops::cuda
