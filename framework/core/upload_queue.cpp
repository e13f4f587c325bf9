#include "framework/core/upload_queue.h"

#include <bit>
#include <cstring>

#include "framework/core/cuda_event.h"
#include "framework/core/cuda_memory.h"

namespace fulcrum {

UploadQueue::UploadQueue(Device device) : device_(device) {}

UploadQueue::~UploadQueue() {
  for (Slot& slot : slots_) {
    if (slot.pinned == nullptr) continue;
    slot.copied->wait();
    cuda_free_pinned(slot.pinned);
  }
}

Tensor UploadQueue::operator()(const Tensor& host) {
  if (device_.is_cpu()) return host;
  const Tensor copy = Tensor::empty(host.shape(), host.dtype(), device_);
  const auto bytes = static_cast<std::size_t>(host.bytes());
  if (bytes == 0) return copy;
  Slot& slot = slots_[next_++ % kSlots];
  if (slot.copied == nullptr) {
    slot.copied = std::make_unique<CudaEvent>();
  } else {
    slot.copied->wait();
  }
  if (bytes > slot.bytes) {
    if (slot.pinned != nullptr) cuda_free_pinned(slot.pinned);
    slot.bytes = std::bit_ceil(bytes);
    slot.pinned = cuda_allocate_pinned(slot.bytes);
  }
  std::memcpy(slot.pinned, host.raw(), bytes);
  cuda_upload(copy.raw(), device_.index, slot.pinned, bytes);
  slot.copied->record();
  return copy;
}

}  // namespace fulcrum
