#pragma once
// Handle of a collective under way.

#include <memory>

namespace fulcrum::parallel {

class Operation;

class Request {
 public:
  Request() = default;  // of something that is done
  explicit Request(std::shared_ptr<Operation> operation) : operation_(std::move(operation)) {}
  // A request dropped before its end, or after an error, leaves the collective's tensors allocated
  // for ever rather than to be written to later: that happens only when an exception is about to
  // end the job.
  ~Request();
  Request(Request&&) = default;
  Request& operator=(Request&& other);

  // Lets the collective make progress; true when it is done. Collectives advance only inside test
  // and wait, or when a ProgressThread follows them.
  bool test();
  // Until it is done. Under the watchdog (parallel/watchdog.h).
  void wait();

  const std::shared_ptr<Operation>& operation() const { return operation_; }

 private:
  std::shared_ptr<Operation> operation_;
};

}  // namespace fulcrum::parallel
