#include "framework/core/upload.h"

#include <cstring>
#include <utility>

#include "framework/core/cuda_memory.h"

namespace fulcrum {

Upload::Upload(Upload&& other) noexcept
    : device_(other.device_),
      tensor_(std::move(other.tensor_)),
      pinned_(std::exchange(other.pinned_, nullptr)),
      bytes_(other.bytes_) {}

Upload::~Upload() {
  if (pinned_ != nullptr) cuda_free_pinned(pinned_);
}

const Tensor& Upload::operator()(const Tensor& host) {
  if (device_.is_cpu()) {
    tensor_ = host;
    return tensor_;
  }
  const auto bytes = static_cast<std::size_t>(host.bytes());
  if (!tensor_.defined() || tensor_.shape() != host.shape() || tensor_.dtype() != host.dtype()) {
    tensor_ = Tensor::empty(host.shape(), host.dtype(), device_);
  }
  if (bytes > bytes_) {
    if (pinned_ != nullptr) cuda_free_pinned(pinned_);
    pinned_ = cuda_allocate_pinned(bytes);
    bytes_ = bytes;
  }
  if (bytes > 0) {
    std::memcpy(pinned_, host.raw(), bytes);
    cuda_upload(tensor_.raw(), device_.index, pinned_, bytes);
  }
  return tensor_;
}

}  // namespace fulcrum
