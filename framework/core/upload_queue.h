#pragma once
// Copies of host tensors of changing shapes on a device, one after another, without waiting for
// what the device is doing (a tensor of one shape that is filled again and again: core/upload.h).

#include <array>
#include <cstddef>
#include <memory>

#include "framework/core/tensor.h"

namespace fulcrum {

class CudaEvent;

class UploadQueue {
 public:
  explicit UploadQueue(Device device);
  ~UploadQueue();
  UploadQueue(const UploadQueue&) = delete;
  UploadQueue& operator=(const UploadQueue&) = delete;

  // A copy on the device, which what is launched on the compute stream later can read; on the CPU
  // the host tensor itself. The host tensor may be changed at once. Waits when the device is
  // several copies behind.
  Tensor operator()(const Tensor& host);

 private:
  // Pinned memory, and the end of the last copy from it.
  struct Slot {
    void* pinned = nullptr;
    std::size_t bytes = 0;
    std::unique_ptr<CudaEvent> copied;
  };
  static constexpr std::size_t kSlots = 8;

  Device device_;
  std::array<Slot, kSlots> slots_;
  std::size_t next_ = 0;
};

}  // namespace fulcrum
