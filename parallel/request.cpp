#include "parallel/request.h"

#include "parallel/operation.h"

namespace fulcrum::parallel {

Request::~Request() {
  if (operation_ && !operation_->finished()) new std::shared_ptr<Operation>(std::move(operation_));
}

Request& Request::operator=(Request&& other) {
  std::swap(operation_, other.operation_);
  std::swap(device_, other.device_);
  return *this;
}

bool Request::test() {
  return (!operation_ || operation_->advance()) && (!device_ || device_->finished());
}

void Request::wait() {
  if (operation_) operation_->wait();
  if (device_) device_->join();
  operation_.reset();
  device_.reset();
}

}  // namespace fulcrum::parallel
