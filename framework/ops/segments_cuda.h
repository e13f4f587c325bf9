#pragma once
// Positions grouped by an integer key, on the device: what ops/segments.h does on the CPU, with
// static shapes and without asking the device how many keys there are.

#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// n positions in the order of their keys, those of equal keys ascending. Each run of equal keys is
// a segment.
struct Segments {
  Tensor positions;  // i32 [n]: where in the input each key stood
  Tensor numbers;    // i32 [n]: segments opened up to here, so that the first position has 1
  Tensor keys;       // i64 [n], of which count are set: the different keys, ascending
  Tensor offsets;    // i32 [n], of which count are set: where in the order each segment begins
  Tensor count;      // i64 [1]

  std::int64_t size() const { return positions.numel(); }
};

// Of the keys of several i64 parts, which count as one input; all lie in [0, bound). By counting
// where a counter for each key is affordable; else by sorting the bits of bound − 1.
Segments find_segments(const std::vector<Tensor>& parts, std::int64_t bound);

}  // namespace fulcrum::ops::cuda
