#pragma once
// Copies from the host to a device that do not wait for what the device is doing.

#include <cstddef>

#include "framework/core/tensor.h"

namespace fulcrum {

// A device tensor that is filled from the host again and again (the batch of a step). The host
// tensor is first copied to pinned memory, so that it may be reused at once; the pinned memory must
// have been read before the next upload, which a training step's one synchronisation ensures. On
// the CPU the tensor is handed on as it is.
class Upload {
 public:
  Upload() = default;
  explicit Upload(Device device) : device_(device) {}
  ~Upload();
  Upload(Upload&& other) noexcept;
  Upload& operator=(Upload&&) = delete;

  // The host tensor's values on the device: always the same device memory, unless the shape
  // changes.
  const Tensor& operator()(const Tensor& host);

 private:
  Device device_;
  Tensor tensor_;
  void* pinned_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace fulcrum
