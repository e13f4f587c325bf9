#pragma once
// Positions grouped by an integer key by counting, where keys are so few that a counter for each
// costs less than sorting.

#include <vector>

#include "framework/ops/segments_cuda.h"

namespace fulcrum::ops::cuda {

struct CountedSegments {
  Segments segments;
  Tensor first;  // i32 [more than bound]: for each key up to bound, how many of the n are below it
};

// Keys of several parts, all i32 or all i64, which count as one input of n > 0; all lie in
// [0, bound), and n and bound count in 31 bits.
CountedSegments count_segments(const std::vector<Tensor>& parts, std::int64_t bound);

}  // namespace fulcrum::ops::cuda
