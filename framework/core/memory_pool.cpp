#include "framework/core/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "framework/core/cuda_memory.h"
#include "framework/core/error.h"

namespace fulcrum {
namespace {

thread_local bool graph_memory = false;
std::atomic<bool> poison{false};

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Four size classes per power of two: at most 25 % is lost to rounding.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 256) return 256;
  const std::size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

void* system_allocate(std::size_t size, Device device) {
  if (!device.is_cpu()) return cuda_allocate(size, device.index);
  const std::size_t alignment = size >= kHugePage ? kHugePage : 64;
  const std::size_t padded = (size + alignment - 1) / alignment * alignment;
  void* block = std::aligned_alloc(alignment, padded);
  if (block != nullptr && size >= kHugePage) madvise(block, padded, MADV_HUGEPAGE);
  return block;
}

void system_free(void* block, Device device) {
  if (device.is_cpu()) {
    std::free(block);
  } else {
    cuda_free(block, device.index);
  }
}

class Pool {
 public:
  explicit Pool(Device device) : device_(device) {}

  void* take(std::size_t size) {
    std::lock_guard lock(mutex_);
    void* block = nullptr;
    if (auto it = free_.find(size); it != free_.end() && !it->second.empty()) {
      block = it->second.back();
      it->second.pop_back();
    } else {
      block = system_allocate(size, device_);
      if (block == nullptr) {
        release_locked();
        block = system_allocate(size, device_);
      }
      FULCRUM_CHECK(block != nullptr, "out of memory on {}: {} MiB asked for, {} MiB in use",
                    device_, size >> 20, stats_.in_use >> 20);
      stats_.reserved += static_cast<std::int64_t>(size);
    }
    stats_.in_use += static_cast<std::int64_t>(size);
    stats_.peak = std::max(stats_.peak, stats_.in_use);
    return block;
  }

  void give(void* block, std::size_t size) {
    std::lock_guard lock(mutex_);
    stats_.in_use -= static_cast<std::int64_t>(size);
    free_[size].push_back(block);
  }

  void release() {
    std::lock_guard lock(mutex_);
    release_locked();
  }

  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak = stats_.in_use;
  }

 private:
  void release_locked() {
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) system_free(block, device_);
      stats_.reserved -= static_cast<std::int64_t>(size * blocks.size());
      blocks.clear();
    }
  }

  Device device_;
  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
  MemoryStats stats_;
};

// Never destroyed: tensors with static lifetime may outlive any order of destruction.
Pool& pool_of(Device device, bool graph) {
  static std::mutex mutex;
  static auto* pools = new std::map<std::tuple<Device::Kind, int, bool>, std::unique_ptr<Pool>>;
  std::lock_guard lock(mutex);
  auto& pool = (*pools)[{device.kind, device.index, graph}];
  if (!pool) pool = std::make_unique<Pool>(device);
  return *pool;
}

}  // namespace

std::shared_ptr<Storage> allocate(std::size_t bytes, Device device) {
  const std::size_t size = size_class(bytes);
  Pool& pool = pool_of(device, graph_memory && device.is_cuda());
  auto* storage = new Storage{pool.take(size), bytes, device};
  if (poison) {
    if (device.is_cpu()) {
      std::memset(storage->data, 0xff, bytes);
    } else {
      cuda_set_bytes(storage->data, 0xff, bytes, device.index);
    }
  }
  return {storage, [size, &pool](Storage* s) {
            pool.give(s->data, size);
            delete s;
          }};
}

std::int64_t pooled_bytes(std::int64_t bytes) {
  return static_cast<std::int64_t>(size_class(static_cast<std::size_t>(bytes)));
}

GraphMemoryScope::GraphMemoryScope() { graph_memory = true; }
GraphMemoryScope::~GraphMemoryScope() { graph_memory = false; }

void poison_memory(bool on) { poison = on; }

MemoryStats memory_stats(Device device) {
  MemoryStats stats = pool_of(device, false).stats();
  if (device.is_cuda()) {
    const MemoryStats graph = pool_of(device, true).stats();
    stats.in_use += graph.in_use;
    stats.peak += graph.peak;
    stats.reserved += graph.reserved;
  }
  return stats;
}

void reset_peak_memory(Device device) {
  pool_of(device, false).reset_peak();
  pool_of(device, true).reset_peak();
}

void release_cached_memory(Device device) { pool_of(device, false).release(); }

}  // namespace fulcrum
