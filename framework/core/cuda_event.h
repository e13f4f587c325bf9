#pragma once
// A point in the compute stream whose time can be read. Internal to core/stopwatch.h.

#include <memory>

namespace fulcrum {

class CudaEvent {
 public:
  CudaEvent();
  ~CudaEvent();
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  void record();
  // Waits for both.
  double seconds_since(const CudaEvent& earlier) const;

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
};

}  // namespace fulcrum
