#pragma once
// A collective on device memory under way. Internal to parallel/request.h; an interface, so that
// builds without CUDA need nothing behind it.

namespace fulcrum::parallel {

// Owns the collective's tensors until it is joined; destroyed before, it joins.
class DeviceRequest {
 public:
  virtual ~DeviceRequest() = default;
  // What is launched on the compute stream from now on runs after the collective. The host does not
  // wait.
  virtual void join() = 0;
  virtual bool finished() = 0;
};

}  // namespace fulcrum::parallel
