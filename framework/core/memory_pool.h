#pragma once
// Caching allocator. A training step asks for the same sizes again and again; blocks go back to
// free lists instead of to the system, so that a step pays no page faults. One pool per device;
// safe to use from several threads.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "framework/core/device.h"

namespace fulcrum {

class MemoryPool;

// A block of memory that returns to its pool when the last owner lets go.
class Storage {
 public:
  void* data = nullptr;
  std::size_t bytes = 0;  // as asked for
  Device device;

  Storage(std::size_t bytes, Device device, MemoryPool& pool);
  ~Storage();
  Storage(const Storage&) = delete;
  void swap(Storage& other);

 private:
  MemoryPool* pool_;
};

struct MemoryStats {
  std::int64_t in_use = 0;    // bytes handed out, rounded to size classes
  std::int64_t peak = 0;      // highest in_use since reset_peak
  std::int64_t reserved = 0;  // bytes taken from the system, in use or cached
};

// Memory is 64-byte aligned and uninitialised. Throws InternalError with the request in its message
// when there is none, after giving cached blocks back.
std::shared_ptr<Storage> allocate(std::size_t bytes, Device device = {});

// Blocks that a captured CUDA graph uses must stay its own: inside the scope, this thread's device
// memory comes from a second pool of the device, which nothing else draws on.
class GraphMemoryScope {
 public:
  GraphMemoryScope();
  ~GraphMemoryScope();
  GraphMemoryScope(const GraphMemoryScope&) = delete;
};

// For tests: from now on memory is handed out full of NaN (every byte 0xff), so that an operator
// that leaves a part of its output unwritten shows.
void poison_memory(bool on);

MemoryStats memory_stats(Device device = {});
void reset_peak_memory(Device device = {});

// What a request of so many bytes takes of the pool: its size class.
std::int64_t pooled_bytes(std::int64_t bytes, Device device = {});

// Gives cached free blocks back to the system.
void release_cached_memory(Device device = {});

}  // namespace fulcrum
