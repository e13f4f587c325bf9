#pragma once
// Descriptions of tensors for the copy engine of Hopper. For CUDA sources only.

#include <cuda.h>

#include <cstdint>

namespace fulcrum {

// bf16 elements [depth, height, width], row-major, read in boxes of 64 columns × 64 rows that land
// in shared memory as hopper.cuh's tiles; elements outside of the tensor read as zero. data and the
// bytes of a row must be multiples of 16, every size positive.
CUtensorMap tensor_map(const void* data, std::int64_t width, std::int64_t height,
                       std::int64_t depth);

}  // namespace fulcrum
