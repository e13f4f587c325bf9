#pragma once
// Large copies between ordinary host memory and the device. For CUDA sources only.

#include <cstddef>

namespace fulcrum {

// On the compute stream of the current device, through two pinned blocks in turn: while the device
// copies one, all threads of the host copy the other. Returns when the bytes are there.
void copy_staged(void* target, const void* source, std::size_t bytes, bool to_host);

}  // namespace fulcrum
