#pragma once
// How long work takes where it runs: by CUDA events on a GPU, by the steady clock on a CPU.

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "framework/core/device.h"

namespace fulcrum {

// Marks on the compute stream, and the time between them.
class Stopwatch {
 public:
  explicit Stopwatch(Device device);
  ~Stopwatch();
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  // Sets mark i at the work asked for so far. Recorded inside a CUDA graph, it is set by each
  // replay.
  void mark(std::size_t i);
  // Seconds from mark i to mark j; waits for both.
  double seconds(std::size_t i, std::size_t j) const;

 private:
  struct Marks;
  std::unique_ptr<Marks> marks_;
};

// Median seconds of one call of `work`, over `repeats` calls after `warmup` ones.
double median_seconds(Device device, int warmup, int repeats, const std::function<void()>& work);

}  // namespace fulcrum
