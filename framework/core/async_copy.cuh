#pragma once
// Copies from device to shared memory that hold no registers while they are under way.

#include <cstdint>

namespace fulcrum {

// Copies kBytes (4, 8 or 16, as both addresses must be multiples of), or writes zeros and reads
// nothing where `wanted` is false.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool wanted) {
#ifdef __CUDA_ARCH__
  const auto target = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(target), "l"(global),
               "n"(kBytes), "r"(wanted ? kBytes : 0)
               : "memory");
#endif
}

// Closes the group of this thread's copies since the last call.
__device__ __forceinline__ void commit_copies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Until all but the newest kPending groups of this thread have arrived, for this thread to read.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

}  // namespace fulcrum
