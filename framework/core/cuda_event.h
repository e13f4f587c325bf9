#pragma once
// A point in the compute stream that can be waited for and whose time can be read. Internal to
// core/.

#include <memory>

namespace fulcrum {

class CudaEvent {
 public:
  CudaEvent();
  ~CudaEvent();
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  void record();
  // The host waits until the device has come here.
  void wait() const;
  // Waits for both.
  double seconds_since(const CudaEvent& earlier) const;

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
};

}  // namespace fulcrum
