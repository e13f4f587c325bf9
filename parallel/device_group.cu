#include <cstdlib>
#include <cstring>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "framework/core/cuda_check.h"
#include "framework/core/cuda_stream.h"
#include "parallel/collectives.h"
#include "parallel/device_collectives.h"
#include "parallel/device_group.h"
#include "parallel/nccl_check.h"

namespace fulcrum::parallel {
namespace {

struct Registry {
  std::mutex mutex;
  std::vector<std::unique_ptr<DeviceGroup>> groups;          // in the order of making
  std::map<std::vector<int>, DeviceGroup*> groups_by_ranks;  // of the world
};

// Never destroyed: what is left at the end of the process, after an emergency, is left alone.
Registry& registry() {
  static auto* instance = new Registry;
  return *instance;
}

Device current_device() {
  int index = 0;
  FULCRUM_CUDA_CHECK(cudaGetDevice(&index));
  return {Device::Kind::cuda, index};
}

// What NCCL tells ranks apart by: the GPU, and the host, which tests rename (NCCL_HOSTID).
struct Identity {
  char gpu[16];
  std::size_t host;
};

Identity identify() {
  cudaDeviceProp properties{};
  FULCRUM_CUDA_CHECK(cudaGetDeviceProperties(&properties, current_device().index));
  Identity identity{};
  std::memcpy(identity.gpu, properties.uuid.bytes, sizeof identity.gpu);
  const char* host = std::getenv("NCCL_HOSTID");
  identity.host = std::hash<std::string>()(host != nullptr ? host : "");
  return identity;
}

void require_own_gpus(const std::shared_ptr<Group>& group) {
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(Identity));
  const Identity mine = identify();
  const Tensor one = Tensor::empty({kBytes}, DType::u8);
  one.copy_from_host(&mine, kBytes);
  const Tensor all = Tensor::empty({group->size * kBytes}, DType::u8);
  start_all_gather(group, {{one, all, std::vector<std::int64_t>(group->size, kBytes)}}).wait();
  std::map<std::string, int> users;
  for (int r = 0; r < group->size; ++r) {
    const std::string key(static_cast<const char*>(all.raw()) + r * kBytes, kBytes);
    const auto [it, is_new] = users.emplace(key, r);
    if (is_new) continue;
    throw UserError(FULCRUM_FORMAT(
        "device: cuda: ranks {} and {} share a GPU, which NCCL does not allow: start at most as "
        "many ranks on a host as it has GPUs (mpirun -n), or use device: cpu",
        group->world_ranks[it->second], group->world_ranks[r]));
  }
}

}  // namespace

// Waits on the compute stream for one launch, whose tensors it keeps until then.
class DeviceGroup::Pending : public DeviceRequest {
 public:
  Pending(DeviceGroup& group, cudaEvent_t end, std::vector<Tensor> tensors)
      : group_(group), end_(end), tensors_(std::move(tensors)) {}

  ~Pending() override {
    if (end_ == nullptr) return;
    cudaStreamWaitEvent(compute_stream(), end_, 0);
    group_.free_events_.push_back(end_);
  }

  void join() override {
    if (end_ == nullptr) return;
    FULCRUM_CUDA_CHECK(cudaStreamWaitEvent(compute_stream(), end_, 0));
    group_.free_events_.push_back(std::exchange(end_, nullptr));
    tensors_.clear();
  }

  bool finished() override {
    if (end_ == nullptr) return true;
    const cudaError_t result = cudaEventQuery(end_);
    if (result == cudaErrorNotReady) return false;
    FULCRUM_CUDA_CHECK(result);
    return true;
  }

 private:
  DeviceGroup& group_;
  cudaEvent_t end_;
  std::vector<Tensor> tensors_;
};

DeviceGroup& DeviceGroup::of(const std::shared_ptr<Group>& group) {
  if (group->device != nullptr) return *group->device;
  Registry& known = registry();
  DeviceGroup*& entry = known.groups_by_ranks[group->world_ranks];
  if (entry == nullptr) {
    std::unique_ptr<DeviceGroup> made(new DeviceGroup(group));
    entry = made.get();
    const std::lock_guard lock(known.mutex);
    known.groups.push_back(std::move(made));
  }
  group->device = entry;
  return *entry;
}

void DeviceGroup::destroy_all() {
  Registry& known = registry();
  for (auto& group : known.groups) group.reset();
  known.groups.clear();
  known.groups_by_ranks.clear();
}

void DeviceGroup::abort_all() noexcept {
  try {
    auto done = std::make_shared<std::promise<void>>();
    std::thread([done] {
      const std::lock_guard lock(registry().mutex);
      for (const auto& group : registry().groups) group->abort();
      done->set_value();
    }).detach();
    done->get_future().wait_for(std::chrono::seconds(2));
  } catch (...) {  // the job ends all the same
  }
}

DeviceGroup::DeviceGroup(const std::shared_ptr<Group>& group)
    : name_(group->name), record_(current_device()) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  FULCRUM_CUDA_CHECK(cudaStreamIsCapturing(compute_stream(), &status));
  FULCRUM_CHECK(status == cudaStreamCaptureStatusNone,
                "the first collective over the {} group must not be under capture", name_);
  const Watch watch("making of the NCCL communicator of the " + name_ + " group", 0);
  require_own_gpus(group);
  ncclUniqueId id{};
  if (group->rank == 0) FULCRUM_NCCL(ncclGetUniqueId(&id));
  start_broadcast(group, {}, &id, sizeof id, 0).wait();
  FULCRUM_NCCL(ncclCommInitRank(&comm_, group->size, id, group->rank));
  // Before other kernels: what waits for a collective waits on every rank.
  int least = 0;
  int greatest = 0;
  FULCRUM_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  FULCRUM_CUDA_CHECK(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest));
  FULCRUM_CUDA_CHECK(cudaEventCreateWithFlags(&start_, cudaEventDisableTiming));
  patrol_ = std::make_unique<Patrol>([this](double limit) { return check(limit); });
}

DeviceGroup::~DeviceGroup() {
  patrol_.reset();
  const Watch watch("end of the NCCL communicator of the " + name_ + " group", 0);
  cudaStreamSynchronize(stream_);
  ncclCommDestroy(comm_);
  cudaStreamDestroy(stream_);
  cudaEventDestroy(start_);
  for (const cudaEvent_t event : free_events_) cudaEventDestroy(event);
}

cudaEvent_t DeviceGroup::take_event() {
  cudaEvent_t event = nullptr;
  if (free_events_.empty()) {
    FULCRUM_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  } else {
    event = free_events_.back();
    free_events_.pop_back();
  }
  return event;
}

Request DeviceGroup::run(const Group& group, const char* operation, std::int64_t bytes,
                         std::vector<Tensor> tensors, const Launch& launch) {
  FULCRUM_CUDA_CHECK(cudaEventRecord(start_, compute_stream()));
  FULCRUM_CUDA_CHECK(cudaStreamWaitEvent(stream_, start_, 0));
  record_.begin(std::string(operation) + " over the " + group.name + " group", bytes, stream_);
  FULCRUM_NCCL(ncclGroupStart());
  launch(comm_, stream_);
  FULCRUM_NCCL(ncclGroupEnd());
  record_.end(stream_);
  const cudaEvent_t end = take_event();
  FULCRUM_CUDA_CHECK(cudaEventRecord(end, stream_));
  return Request(std::make_shared<Pending>(*this, end, std::move(tensors)));
}

std::string DeviceGroup::check(double limit) {
  if (aborted_) return {};
  ncclResult_t error = ncclSuccess;
  if (ncclCommGetAsyncError(comm_, &error) == ncclSuccess && error != ncclSuccess &&
      error != ncclInProgress) {
    return FULCRUM_FORMAT("NCCL, {} group: {} ({})", name_, ncclGetErrorString(error),
                          ncclGetLastError(nullptr));
  }
  const auto now = std::chrono::steady_clock::now();
  const FlightRecord::Reading reading = record_.read();
  if (reading.operation.empty() || reading.operation != seen_.operation ||
      reading.finished != seen_.finished) {
    seen_ = reading;
    seen_since_ = now;
    return {};
  }
  const double seconds = std::chrono::duration<double>(now - seen_since_).count();
  if (limit <= 0 || seconds <= limit) return {};
  return overdue_message(reading.operation, reading.bytes, seconds, "on the GPU", limit);
}

void DeviceGroup::abort() noexcept {
  if (!aborted_.exchange(true)) ncclCommAbort(comm_);
}

namespace cuda {

void destroy_all() { DeviceGroup::destroy_all(); }
void abort_all() noexcept { DeviceGroup::abort_all(); }

}  // namespace cuda
}  // namespace fulcrum::parallel
