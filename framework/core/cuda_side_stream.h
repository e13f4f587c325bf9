#pragma once
// Work that an operator does beside the compute stream, because its parts do not need each other.
// For CUDA sources only.

#include <cuda_runtime_api.h>

namespace fulcrum {

// What is given to stream() runs after all that the compute stream was given before this object was
// made; what the compute stream is given after join() runs after it. Both hold under capture too.
// Tensors that the work uses must live until join(), or, where an exception comes before it, as
// long as the object, which then joins at its end. One object at a time.
class SideStream {
 public:
  SideStream();
  ~SideStream();
  SideStream(const SideStream&) = delete;
  cudaStream_t stream() const;
  void join();

 private:
  bool joined_ = false;
};

}  // namespace fulcrum
