#pragma once
// One launch over many tensors: their descriptions travel as a kernel argument, so that no table on
// the device has to be kept up to date, and a captured graph keeps its own.
//
//   for_each_list(entries, kChunk, [&](const auto& list, unsigned chunks) {
//     kernel<<<chunks, kThreads, 0, compute_stream()>>>(list, …);
//   });
//
// A block takes one chunk of neighbouring elements of one tensor.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "framework/core/cuda_kernel.cuh"

namespace fulcrum::cuda {

// Entry has members `std::int64_t count`, elements, and `int first_chunk`.
template <class Entry, int kCapacity>
struct TensorList {
  Entry entries[kCapacity];
  int size = 0;

  // Index of the entry to which a chunk belongs.
  __device__ int index_of(int chunk) const {
    int low = 0;
    for (int high = size; high - low > 1;) {
      const int middle = (low + high) / 2;
      if (entries[middle].first_chunk <= chunk) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

// Arguments of a kernel may take 32764 bytes; a launch with few tensors sends less.
template <class Entry>
inline constexpr int kMostEntries = 30000 / static_cast<int>(sizeof(Entry));
template <class Entry>
inline constexpr int kFewEntries = 3500 / static_cast<int>(sizeof(Entry));

// Sets first_chunk of every entry; entries without elements are left out.
template <class Entry, class Launch>
void for_each_list(std::vector<Entry> entries, std::int64_t chunk, Launch&& launch) {
  std::erase_if(entries, [](const Entry& entry) { return entry.count == 0; });
  const auto send = [&]<int kCapacity>(std::size_t begin, std::size_t end) {
    TensorList<Entry, kCapacity> list;
    std::int64_t chunks = 0;
    for (std::size_t i = begin; i < end; ++i) {
      entries[i].first_chunk = static_cast<int>(chunks);
      chunks += ceil_div(entries[i].count, chunk);
      list.entries[list.size++] = entries[i];
    }
    FULCRUM_CHECK(chunks < (std::int64_t{1} << 31), "{} chunks in one launch", chunks);
    launch(list, static_cast<unsigned>(chunks));
    FULCRUM_CUDA_LAUNCHED();
  };
  for (std::size_t begin = 0; begin < entries.size();) {
    const std::size_t end = std::min(entries.size(), begin + kMostEntries<Entry>);
    if (end - begin <= kFewEntries<Entry>) {
      send.template operator()<kFewEntries<Entry>>(begin, end);
    } else {
      send.template operator()<kMostEntries<Entry>>(begin, end);
    }
    begin = end;
  }
}

}  // namespace fulcrum::cuda
