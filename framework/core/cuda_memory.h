#pragma once
// Memory of CUDA devices as the pool and tensors use it. Work is ordered on the device's compute
// stream; copies to the host return when the bytes are there. A build without CUDA has
// cuda_memory_none.cpp, whose functions throw UserError.

#include <cstddef>

#include "framework/core/device.h"

namespace fulcrum {

// 0 without a device, a driver, or CUDA in this build.
int cuda_device_count();

void* cuda_allocate(std::size_t bytes, int index);  // null when there is none left
void cuda_free(void* block, int index);
void cuda_copy(void* target, Device target_device, const void* source, Device source_device,
               std::size_t bytes);
void cuda_zero(void* block, std::size_t bytes, int index);

}  // namespace fulcrum
