#pragma once
// How long the memory of captured graphs (core/memory_pool.h, GraphMemoryScope) stays theirs.

namespace fulcrum {

// Kept by a captured graph, from before its capture on. While there is one, free blocks of the
// graphs' pool are not given back to the system, even when memory runs out: their addresses stand
// in the graph. When there is none, release_cached_memory gives them back, too.
class GraphMemory {
 public:
  GraphMemory();
  ~GraphMemory();
  GraphMemory(const GraphMemory&) = delete;
};

}  // namespace fulcrum
