#pragma once
// Copies of host memory.

#include <cstddef>

namespace fulcrum {

// memcpy; large blocks on all threads.
void copy_memory(void* target, const void* source, std::size_t bytes);

}  // namespace fulcrum
