#include "framework/core/stopwatch.h"

#include <algorithm>
#include <chrono>

#include "framework/core/cuda_event.h"

namespace fulcrum {

struct Stopwatch::Marks {
  Device device;
  std::vector<std::chrono::steady_clock::time_point> host;
  std::vector<std::unique_ptr<CudaEvent>> events;
};

Stopwatch::Stopwatch(Device device) : marks_(std::make_unique<Marks>()) { marks_->device = device; }
Stopwatch::~Stopwatch() = default;

void Stopwatch::mark(std::size_t i) {
  if (marks_->device.is_cpu()) {
    if (marks_->host.size() <= i) marks_->host.resize(i + 1);
    marks_->host[i] = std::chrono::steady_clock::now();
    return;
  }
  while (marks_->events.size() <= i) marks_->events.push_back(std::make_unique<CudaEvent>());
  marks_->events[i]->record();
}

double Stopwatch::seconds(std::size_t i, std::size_t j) const {
  if (marks_->device.is_cpu()) {
    return std::chrono::duration<double>(marks_->host.at(j) - marks_->host.at(i)).count();
  }
  return marks_->events.at(j)->seconds_since(*marks_->events.at(i));
}

double median_seconds(Device device, int warmup, int repeats, const std::function<void()>& work) {
  for (int i = 0; i < warmup; ++i) work();
  Stopwatch watch(device);
  const auto n = static_cast<std::size_t>(repeats);
  for (std::size_t i = 0; i < n; ++i) {
    watch.mark(i);
    work();
  }
  watch.mark(n);
  std::vector<double> times;
  for (std::size_t i = 0; i < n; ++i) times.push_back(watch.seconds(i, i + 1));
  std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
  return times[n / 2];
}

}  // namespace fulcrum
