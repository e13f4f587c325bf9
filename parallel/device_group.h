#pragma once
// The ranks of a group as NCCL sees them. For CUDA sources only.
//
// Groups of the same ranks in the same order share one NCCL communicator and one stream, made by
// the first collective on device memory, which all of them join: communicators cost hundreds of MiB
// of device memory. Collectives on device memory over such groups are therefore ordered among each
// other, and every rank starts them in the same order. They live until the session ends.

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "framework/core/tensor.h"
#include "parallel/flight_record.h"
#include "parallel/operation.h"
#include "parallel/request.h"
#include "parallel/watchdog.h"

namespace fulcrum::parallel {

class DeviceGroup {
 public:
  // That of the group, made if need be. Collective over it when it is made; then nothing may be
  // under capture. Throws UserError when two of the ranks would share a GPU.
  static DeviceGroup& of(const std::shared_ptr<Group>& group);
  // Of all groups, in the order in which they were made. Collective over each.
  static void destroy_all();
  // When the job ends in an emergency: ends what is under way on the device, within two seconds.
  static void abort_all() noexcept;

  ~DeviceGroup();
  DeviceGroup(const DeviceGroup&) = delete;
  DeviceGroup& operator=(const DeviceGroup&) = delete;

  // Launches NCCL calls on the group's stream as one: after what the compute stream has so far, and
  // before what it gets once the request has been waited for. The request keeps the tensors.
  using Launch = std::function<void(ncclComm_t, cudaStream_t)>;
  Request run(const Group& group, const char* operation, std::int64_t bytes,
              std::vector<Tensor> tensors, const Launch& launch);

 private:
  class Pending;
  explicit DeviceGroup(const std::shared_ptr<Group>& group);
  void abort() noexcept;
  std::string check(double limit);
  cudaEvent_t take_event();

  std::string name_;
  ncclComm_t comm_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t start_ = nullptr;
  std::vector<cudaEvent_t> free_events_;
  FlightRecord record_;
  std::atomic<bool> aborted_{false};
  // What the last check saw under way, and since when.
  FlightRecord::Reading seen_;
  std::chrono::steady_clock::time_point seen_since_;
  std::unique_ptr<Patrol> patrol_;
};

}  // namespace fulcrum::parallel
