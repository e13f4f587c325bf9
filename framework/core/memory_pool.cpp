#include "framework/core/memory_pool.h"

#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "framework/core/error.h"

namespace fulcrum {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Four size classes per power of two: at most 25 % is lost to rounding.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 256) return 256;
  const std::size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

class CpuPool {
 public:
  void* take(std::size_t size) {
    {
      std::lock_guard lock(mutex_);
      stats_.in_use += static_cast<std::int64_t>(size);
      stats_.peak = std::max(stats_.peak, stats_.in_use);
      auto it = free_.find(size);
      if (it != free_.end() && !it->second.empty()) {
        void* block = it->second.back();
        it->second.pop_back();
        return block;
      }
      stats_.reserved += static_cast<std::int64_t>(size);
    }
    const std::size_t alignment = size >= kHugePage ? kHugePage : 64;
    const std::size_t padded = (size + alignment - 1) / alignment * alignment;
    void* block = std::aligned_alloc(alignment, padded);
    if (block == nullptr) {
      release();
      block = std::aligned_alloc(alignment, padded);
    }
    if (block == nullptr) {
      std::lock_guard lock(mutex_);
      stats_.in_use -= static_cast<std::int64_t>(size);
      stats_.reserved -= static_cast<std::int64_t>(size);
      throw InternalError(fmt::format("out of memory: {} MiB asked for, {} MiB in use", size >> 20,
                                      stats_.in_use >> 20));
    }
    if (size >= kHugePage) madvise(block, padded, MADV_HUGEPAGE);
    return block;
  }

  void give(void* block, std::size_t size) {
    std::lock_guard lock(mutex_);
    stats_.in_use -= static_cast<std::int64_t>(size);
    free_[size].push_back(block);
  }

  void release() {
    std::lock_guard lock(mutex_);
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) std::free(block);
      stats_.reserved -= static_cast<std::int64_t>(size * blocks.size());
      blocks.clear();
    }
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
  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
  MemoryStats stats_;
};

// Never destroyed: tensors with static lifetime may outlive any order of destruction.
CpuPool& cpu_pool() {
  static auto* pool = new CpuPool;
  return *pool;
}

void require_cpu(Device device) {
  FULCRUM_REQUIRE(device.is_cpu(), "allocate: this build has no memory pool for {}", device);
}

}  // namespace

std::shared_ptr<Storage> allocate(std::size_t bytes, Device device) {
  require_cpu(device);
  const std::size_t size = size_class(bytes);
  auto* storage = new Storage{cpu_pool().take(size), bytes, device};
  return {storage, [size](Storage* s) {
            cpu_pool().give(s->data, size);
            delete s;
          }};
}

MemoryStats memory_stats(Device device) {
  require_cpu(device);
  return cpu_pool().stats();
}

void reset_peak_memory(Device device) {
  require_cpu(device);
  cpu_pool().reset_peak();
}

void release_cached_memory(Device device) {
  require_cpu(device);
  cpu_pool().release();
}

}  // namespace fulcrum
