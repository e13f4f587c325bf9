#pragma once
// Which collective a device is in, for the host to read while the device is stuck in it. The device
// itself writes it down, so that collectives inside a CUDA graph are on record, too. For CUDA
// sources only.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum::parallel {

class FlightRecord {
 public:
  explicit FlightRecord(Device device);
  ~FlightRecord();
  FlightRecord(const FlightRecord&) = delete;
  FlightRecord& operator=(const FlightRecord&) = delete;

  // Around what is launched on the stream; may be captured. begin takes no multiprocessor, so that
  // it does not queue behind a kernel that fills the device.
  void begin(const std::string& operation, std::int64_t bytes, cudaStream_t stream);
  void end(cudaStream_t stream);

  struct Reading {
    std::string operation;       // under way; empty: none
    std::int64_t bytes = 0;      // its size, rounded to KiB
    std::uint32_t finished = 0;  // operations so far
  };
  // From any thread.
  Reading read();

 private:
  struct Marks {
    std::uint32_t operation;  // index into names_ + 1; 0: none
    std::uint32_t kib;
    std::uint32_t finished;
  };
  volatile Marks* marks_ = nullptr;  // host memory that the device writes
  Tensor finished_;                  // i64 [1]: the device's own count
  std::mutex mutex_;
  std::vector<std::string> names_;
};

}  // namespace fulcrum::parallel
