#include <algorithm>
#include <mutex>

#include "framework/core/cuda_check.h"
#include "framework/core/cuda_memory.h"
#include "framework/core/cuda_staging.h"
#include "framework/core/cuda_stream.h"
#include "framework/core/host_memory.h"

namespace fulcrum {
namespace {

constexpr std::size_t kBlock = std::size_t{32} << 20;

// A pinned block and the end of the device's last copy from or to it.
struct Stage {
  char* block = static_cast<char*>(cuda_allocate_pinned(kBlock));
  cudaEvent_t done = nullptr;

  Stage() { FULCRUM_CUDA_CHECK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming)); }
  void copy(void* target, const void* source, std::size_t bytes) {
    FULCRUM_CUDA_CHECK(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, compute_stream()));
    FULCRUM_CUDA_CHECK(cudaEventRecord(done, compute_stream()));
  }
  void wait() const { FULCRUM_CUDA_CHECK(cudaEventSynchronize(done)); }
};

}  // namespace

void copy_staged(void* target, const void* source, std::size_t bytes, bool to_host) {
  static std::mutex mutex;
  static auto* const stages = new Stage[2];  // never destroyed: the driver may be gone by then
  const std::lock_guard lock(mutex);
  auto* const to = static_cast<char*>(target);
  const auto* const from = static_cast<const char*>(source);
  const auto size_at = [&](std::size_t at) { return std::min(kBlock, bytes - at); };
  const std::size_t pieces = (bytes + kBlock - 1) / kBlock;
  for (std::size_t i = 0; i < pieces; ++i) {
    const std::size_t at = i * kBlock;
    Stage& stage = stages[i % 2];
    if (!to_host) {
      if (i >= 2) stage.wait();
      copy_memory(stage.block, from + at, size_at(at));
      stage.copy(to + at, stage.block, size_at(at));
      continue;
    }
    stage.copy(stage.block, from + at, size_at(at));
    if (i == 0) continue;
    const std::size_t before = at - kBlock;
    stages[(i - 1) % 2].wait();
    copy_memory(to + before, stages[(i - 1) % 2].block, kBlock);
  }
  stages[(pieces - 1) % 2].wait();
  if (to_host) {
    const std::size_t last = (pieces - 1) * kBlock;
    copy_memory(to + last, stages[(pieces - 1) % 2].block, size_at(last));
  }
}

}  // namespace fulcrum
