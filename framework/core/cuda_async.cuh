#pragma once
// Copies of a few bytes from global into shared memory that go on while the thread works (cp.async,
// from compute capability 8.0 on). A thread waits for its own copies only.

#include <cstdint>

namespace fulcrum {

// kBytes: 4 or 16; both addresses are multiples of it.
template <int kBytes>
__device__ inline void copy_async(void* shared, const void* global) {
  static_assert(kBytes == 4 || kBytes == 16);
  const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16) {  // past the first-level cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(global) : "memory");
  }
}

// Ends a group: the copies that the thread began since the last one.
__device__ inline void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most the kLatest last groups are on their way.
template <int kLatest>
__device__ inline void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLatest) : "memory");
}

}  // namespace fulcrum
