#pragma once
// Memory of CUDA devices as the pool and tensors use it. Work is ordered on the compute stream
// (core/cuda_stream.h); copies to and from the host return when the bytes are there. A build
// without CUDA has cuda_memory_none.cpp, whose functions throw UserError.

#include <cstddef>

#include "framework/core/device.h"

namespace fulcrum {

// 0 without a device, a driver, or CUDA in this build.
int cuda_device_count();
// Makes a device the one of this process: a rank computes on one.
void use_cuda_device(int index);
// Waits until the device has done everything asked of it.
void cuda_synchronize();

void* cuda_allocate(std::size_t bytes, int index);  // null when there is none left
void cuda_free(void* block, int index);
void cuda_copy(void* target, Device target_device, const void* source, Device source_device,
               std::size_t bytes);
// Sets every byte.
void cuda_set_bytes(void* block, int value, std::size_t bytes, int index);

}  // namespace fulcrum
