#include "framework/core/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "framework/core/cuda_memory.h"
#include "framework/core/error.h"
#include "framework/core/graph_memory.h"

namespace fulcrum {
namespace {

thread_local bool graph_memory = false;
std::atomic<bool> poison{false};
std::atomic<int> graphs{0};

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Four size classes per power of two: at most 25 % is lost to rounding. Large blocks of a GPU,
// whose memory is scarce and whose steps ask for the very same sizes, are rounded to pages only.
std::size_t size_class(std::size_t bytes, Device device) {
  if (bytes <= 256) return 256;
  if (device.is_cuda() && bytes >= kHugePage) {
    return (bytes + kHugePage - 1) / kHugePage * kHugePage;
  }
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

// What the pools of one device have handed out together.
class Counter {
 public:
  void reserve(std::int64_t bytes) {
    change([&] { stats_.reserved += bytes; });
  }
  void use(std::int64_t bytes) {
    change([&] {
      stats_.in_use += bytes;
      stats_.peak = std::max(stats_.peak, stats_.in_use);
    });
  }
  void reset_peak() {
    change([&] { stats_.peak = stats_.in_use; });
  }
  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  template <class Fn>
  void change(Fn&& fn) {
    std::lock_guard lock(mutex_);
    fn();
  }
  std::mutex mutex_;
  MemoryStats stats_;
};

}  // namespace

class MemoryPool {
 public:
  // spare: gives its free blocks back when memory runs out; null: this pool itself.
  MemoryPool(Device device, Counter& counter, MemoryPool* spare)
      : device_(device), counter_(counter), spare_(spare) {}

  void* take(std::size_t size) {
    std::lock_guard lock(mutex_);
    void* block = nullptr;
    if (auto it = free_.find(size); it != free_.end() && !it->second.empty()) {
      block = it->second.back();
      it->second.pop_back();
    } else {
      block = system_allocate(size, device_);
      if (block == nullptr) {
        spare_ == nullptr ? release_locked() : spare_->release();
        block = system_allocate(size, device_);
      }
      FULCRUM_CHECK(block != nullptr, "out of memory on {}: {} MiB asked for, {} MiB in use",
                    device_, size >> 20, counter_.stats().in_use >> 20);
      counter_.reserve(static_cast<std::int64_t>(size));
    }
    counter_.use(static_cast<std::int64_t>(size));
    return block;
  }

  void give(void* block, std::size_t size) {
    std::lock_guard lock(mutex_);
    counter_.use(-static_cast<std::int64_t>(size));
    free_[size].push_back(block);
  }

  void release() {
    std::lock_guard lock(mutex_);
    release_locked();
  }

 private:
  void release_locked() {
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) system_free(block, device_);
      counter_.reserve(-static_cast<std::int64_t>(size * blocks.size()));
      blocks.clear();
    }
  }

  Device device_;
  Counter& counter_;
  MemoryPool* spare_;
  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
};

namespace {

// The memory of one device: for tensors at large, and for those of captured graphs.
struct Arena {
  Counter counter;
  MemoryPool pool, graph_pool;
  explicit Arena(Device device)
      : pool(device, counter, nullptr), graph_pool(device, counter, &pool) {}
};

// Never destroyed: tensors with static lifetime may outlive any order of destruction.
Arena& arena_of(Device device) {
  static std::mutex mutex;
  static auto* arenas = new std::map<std::pair<Device::Kind, int>, std::unique_ptr<Arena>>;
  std::lock_guard lock(mutex);
  auto& arena = (*arenas)[{device.kind, device.index}];
  if (!arena) arena = std::make_unique<Arena>(device);
  return *arena;
}

}  // namespace

Storage::Storage(std::size_t size, Device where, MemoryPool& pool)
    : data(pool.take(size_class(size, where))), bytes(size), device(where), pool_(&pool) {}

Storage::~Storage() { pool_->give(data, size_class(bytes, device)); }

void Storage::swap(Storage& other) {
  std::swap(data, other.data);
  std::swap(bytes, other.bytes);
  std::swap(device, other.device);
  std::swap(pool_, other.pool_);
}

std::shared_ptr<Storage> allocate(std::size_t bytes, Device device) {
  Arena& arena = arena_of(device);
  auto storage = std::make_shared<Storage>(
      bytes, device, graph_memory && device.is_cuda() ? arena.graph_pool : arena.pool);
  if (poison) {
    if (device.is_cpu()) {
      std::memset(storage->data, 0xff, bytes);
    } else {
      cuda_set_bytes(storage->data, 0xff, bytes, device.index);
    }
  }
  return storage;
}

std::int64_t pooled_bytes(std::int64_t bytes, Device device) {
  return static_cast<std::int64_t>(size_class(static_cast<std::size_t>(bytes), device));
}

GraphMemoryScope::GraphMemoryScope() { graph_memory = true; }
GraphMemoryScope::~GraphMemoryScope() { graph_memory = false; }

GraphMemory::GraphMemory() { ++graphs; }
GraphMemory::~GraphMemory() { --graphs; }

void poison_memory(bool on) { poison = on; }

MemoryStats memory_stats(Device device) { return arena_of(device).counter.stats(); }
void reset_peak_memory(Device device) { arena_of(device).counter.reset_peak(); }
void release_cached_memory(Device device) {
  Arena& arena = arena_of(device);
  arena.pool.release();
  if (graphs == 0) arena.graph_pool.release();
}

}  // namespace fulcrum
