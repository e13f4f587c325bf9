#pragma once
// Handle of a collective under way.

#include <memory>

#include "parallel/device_request.h"

namespace fulcrum::parallel {

class Operation;

class Request {
 public:
  Request() = default;  // of something that is done
  explicit Request(std::shared_ptr<Operation> operation) : operation_(std::move(operation)) {}
  explicit Request(std::shared_ptr<DeviceRequest> device) : device_(std::move(device)) {}
  // A request on host memory dropped before its end, or after an error, leaves the collective's
  // tensors allocated for ever rather than to be written to later: that happens only when an
  // exception is about to end the job.
  ~Request();
  Request(Request&&) = default;
  Request& operator=(Request&& other);

  // Lets the collective make progress; true when it is done. Collectives on host memory advance
  // only inside test and wait, or when a ProgressThread follows them.
  bool test();
  // On host memory: until it is done, under the watchdog (parallel/watchdog.h). On device memory
  // the compute stream waits, not the host.
  void wait();

  // Null on device memory.
  const std::shared_ptr<Operation>& operation() const { return operation_; }

 private:
  std::shared_ptr<Operation> operation_;
  std::shared_ptr<DeviceRequest> device_;
};

}  // namespace fulcrum::parallel
