#pragma once
// Memory of CUDA devices as the pool and tensors use it. Work is ordered on the compute stream
// (core/cuda_stream.h); copies to and from the host return when the bytes are there. A build
// without CUDA has cuda_memory_none.cpp, whose functions throw UserError.

#include <cstddef>
#include <string>

#include "framework/core/device.h"

namespace fulcrum {

// 0 without a device, a driver, or CUDA in this build.
int cuda_device_count();
// "NVIDIA H100 80GB HBM3"
std::string cuda_device_name(int index);
// Makes a device the one of this process: a rank computes on one.
void use_cuda_device(int index);
// Waits until the device has done everything asked of it.
void cuda_synchronize();

void* cuda_allocate(std::size_t bytes, int index);  // null when there is none left
void cuda_free(void* block, int index);
void cuda_copy(void* target, Device target_device, const void* source, Device source_device,
               std::size_t bytes);
// Host memory that the device copies from by itself.
void* cuda_allocate_pinned(std::size_t bytes);
void cuda_free_pinned(void* block);
// From pinned memory, without waiting: the memory must stay as it is until the device has read it.
void cuda_upload(void* target, int index, const void* pinned, std::size_t bytes);
// Sets every byte.
void cuda_set_bytes(void* block, int value, std::size_t bytes, int index);

}  // namespace fulcrum
