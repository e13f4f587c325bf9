#pragma once
// Descriptions of tensors for the copy engine of Hopper. For CUDA sources only.

#include <cuda.h>

#include <cstdint>

#include "framework/core/dtype.h"

namespace fulcrum {

// bf16 or f32 elements [depth, height, width], row-major, that travel in boxes of 128 bytes ×
// box_rows rows: in shared memory rows of 128 bytes, swizzled as hopper.cuh's tiles. Elements
// outside of the tensor read as zero and are not written. data and the bytes of a row must be
// multiples of 16, every size positive.
CUtensorMap tensor_map(const void* data, DType dtype, std::int64_t width, std::int64_t height,
                       std::int64_t depth, int box_rows = 64);

}  // namespace fulcrum
