#pragma once
// Work that an operator does beside the compute stream, because its parts do not need each other.
// For CUDA sources only.

#include <cuda_runtime_api.h>

namespace fulcrum {

// What is given to stream() runs after all that the compute stream was given before this object was
// made; what the compute stream is given after join() runs after it. Both hold under capture too.
// Tensors that the work uses must live until join(), which must be called; one object at a time.
class SideStream {
 public:
  SideStream();
  cudaStream_t stream() const;
  void join();
};

}  // namespace fulcrum
