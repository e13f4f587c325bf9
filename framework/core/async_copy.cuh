#pragma once
// Copies of a few bytes from global into shared memory that hold no registers while they are under
// way (cp.async, from compute capability 8.0 on). A thread waits for its own copies only.

#include <cstdint>

namespace fulcrum {

// kBytes: 4 or 16; both addresses are multiples of it.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
  static_assert(kBytes == 4 || kBytes == 16);
  const auto target = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16) {  // past the first-level cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(target), "l"(global) : "memory");
  }
}

// The same of 4, 8 or 16 bytes; where `wanted` is false, writes zeros and reads nothing.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool wanted) {
  const auto target = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(target), "l"(global),
               "n"(kBytes), "r"(wanted ? kBytes : 0)
               : "memory");
}

// Closes the group of this thread's copies since the last call.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until all but the newest kPending groups of this thread have arrived, for this thread to read.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace fulcrum
