#pragma once
// Ranges that NVIDIA's profilers show; nothing without CUDA. Internal to core/region.h.

namespace fulcrum {

void nvtx_push(const char* name);
void nvtx_pop();

}  // namespace fulcrum
